-- What the models' sinks need: the columns of 0001 where the tables were there before; the day a
-- fit speaks of beside the time it was made, by which an older answer is told from a newer one;
-- and what models put among the weekly indicators, so that a later recomputation of the week does
-- not take it back.

alter table growth_glmm_meta
    add column if not exists run_id text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table growth_brms_meta
    add column if not exists run_id text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table prophet_fit_meta
    add column if not exists run_id text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table prophet_anomalies
    add column if not exists run_id text,
    add column if not exists week_start date,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table survival_fit_meta
    add column if not exists run_id text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table user_segment
    add column if not exists user_id text,
    add column if not exists run_id text,
    add column if not exists segment text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table segment_meta
    add column if not exists run_id text,
    add column if not exists params jsonb,
    add column if not exists metrics jsonb,
    add column if not exists fitted_at timestamptz,
    add column if not exists as_of date;

alter table weekly_kpi
    add column if not exists model_kpis jsonb,
    add column if not exists model_offset bigint;

-- A table made by 0001 has its key; one of the users' may have been made without.
do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values
            ('growth_glmm_meta', '{run_id}'::text[]),
            ('growth_brms_meta', '{run_id}'::text[]),
            ('prophet_fit_meta', '{run_id}'::text[]),
            ('prophet_anomalies', '{run_id,week_start}'::text[]),
            ('survival_fit_meta', '{run_id}'::text[]),
            ('user_segment', '{user_id}'::text[]),
            ('segment_meta', '{run_id}'::text[])
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
