-- Rows that the database refused for what they hold: set aside, so that the others go on.
-- The record is kept as it came; the key says which of its rows was refused.

create table if not exists sink_rejects (
    kafka_topic text not null,
    kafka_partition int not null,
    kafka_offset bigint not null,
    table_name text not null,
    row_key text not null,
    error text not null,
    record bytea,
    rejected_at timestamptz not null default now(),
    primary key (kafka_topic, kafka_partition, kafka_offset, table_name, row_key)
);
