-- What the sinks need beside the users' columns, also where the tables were there before:
-- nullable columns that say how far the log was folded for a row, by which an older row is told
-- from a newer one, and a unique key for `on conflict`.

alter table features_topic_daily
    add column if not exists improvement_accuracy double precision,
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table weekly_kpi
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table student_topic_theta
    add column if not exists last_attempt_at timestamptz,
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table mirt_ability
    add column if not exists last_attempt_at timestamptz,
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table mirt_item_params
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table mirt_fit_meta
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table question
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table growth_glmm_meta
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table growth_brms_meta
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table prophet_fit_meta
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table prophet_anomalies
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table survival_fit_meta
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table user_segment
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table segment_meta
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table item_calibration
    add column if not exists item_id text,
    add column if not exists version text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

alter table drift_alerts
    add column if not exists alert_id text,
    add column if not exists kind text,
    add column if not exists run_id text,
    add column if not exists item_id text,
    add column if not exists detail text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists raised_at timestamptz,
    add column if not exists source_partition int,
    add column if not exists source_offset bigint,
    add column if not exists params_version text;

create index if not exists mirt_ability_user_id_fitted_at on mirt_ability (user_id, fitted_at);

-- A table made above has its key; one of the users' may have been made without.
do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values
            ('features_topic_daily', '{user_id,topic_id,date}'::text[]),
            ('weekly_kpi', '{user_id,week_start}'::text[]),
            ('student_topic_theta', '{user_id,topic_id}'::text[]),
            ('mirt_ability', '{user_id,version}'::text[]),
            ('mirt_item_params', '{item_id}'::text[]),
            ('mirt_fit_meta', '{run_id}'::text[]),
            ('item_calibration', '{item_id,version}'::text[]),
            ('drift_alerts', '{alert_id}'::text[])
        ) as w (name, key)
    loop
        if not exists (
            select from pg_index i
            cross join lateral (
                select array_agg(a.attname::text) as columns
                from pg_attribute a
                where a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
            ) as has
            where i.indrelid = wanted.name::regclass
                and i.indisunique and i.indimmediate and i.indpred is null and i.indexprs is null
                and has.columns @> wanted.key and has.columns <@ wanted.key
        ) then
            execute format(
                'create unique index on %I (%s)',
                wanted.name,
                (select string_agg(format('%I', k), ', ') from unnest(wanted.key) as k)
            );
        end if;
    end loop;
end $$;
