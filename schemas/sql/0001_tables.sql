-- The tables, by the names and columns that existing deployments have. Where a table is there
-- already, its rows and columns are left alone; 0002 adds what the sinks need beside them.

create table if not exists features_topic_daily (
    user_id text not null,
    topic_id text not null,
    date date not null,
    attempts int,
    correct int,
    avg_time_ms double precision,
    hints int,
    theta_estimate numeric(6, 3),
    theta_sd double precision,
    rt_median double precision,
    improvement double precision,
    last_seen_at timestamptz,
    computed_at timestamptz,
    primary key (user_id, topic_id, date)
);

create table if not exists weekly_kpi (
    user_id text not null,
    week_start date not null,
    kpis jsonb,
    created_at timestamptz,
    updated_at timestamptz,
    primary key (user_id, week_start)
);

create table if not exists student_topic_theta (
    user_id text not null,
    topic_id text not null,
    theta double precision,
    se double precision,
    model text,
    version text,
    fitted_at timestamptz,
    primary key (user_id, topic_id)
);

-- History: one row a learner and calibration, and one with version 'live'.
create table if not exists mirt_ability (
    user_id text not null,
    version text not null,
    theta double precision,
    se double precision,
    model text,
    fitted_at timestamptz,
    primary key (user_id, version)
);

create table if not exists mirt_item_params (
    item_id text primary key,
    model text,
    params jsonb,
    version text,
    fitted_at timestamptz
);

create table if not exists mirt_fit_meta (
    run_id text primary key,
    model_spec jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

create table if not exists question (
    id text primary key,
    meta jsonb
);

create table if not exists growth_glmm_meta (
    run_id text primary key,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

create table if not exists growth_brms_meta (
    run_id text primary key,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

create table if not exists prophet_fit_meta (
    run_id text primary key,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

create table if not exists prophet_anomalies (
    run_id text not null,
    week_start date not null,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz,
    primary key (run_id, week_start)
);

create table if not exists survival_fit_meta (
    run_id text primary key,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

create table if not exists user_segment (
    user_id text primary key,
    run_id text,
    segment text,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

create table if not exists segment_meta (
    run_id text primary key,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz
);

-- History: one row an item and calibration.
create table if not exists item_calibration (
    item_id text not null,
    version text not null,
    params jsonb,
    metrics jsonb,
    fitted_at timestamptz,
    primary key (item_id, version)
);

-- Something a person should look at: a calibration that was refused, an item that drifted.
create table if not exists drift_alerts (
    alert_id text primary key,
    kind text,
    run_id text,
    item_id text,
    detail text,
    params jsonb,
    metrics jsonb,
    raised_at timestamptz
);
