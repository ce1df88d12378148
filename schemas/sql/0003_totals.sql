-- Totals: every attempts partition owns an absolute row a topic and an item; a total is their sum.
-- A replayed row replaces itself, so repeating one changes nothing.

create table if not exists topic_partials (
    topic_id text not null,
    partition int not null,
    attempts bigint not null,
    correct bigint not null,
    learners bigint not null,
    source_offset bigint,
    primary key (topic_id, partition)
);

create table if not exists item_partials (
    item_id text not null,
    partition int not null,
    attempts bigint not null,
    correct bigint not null,
    expected double precision,
    variance double precision,
    source_offset bigint,
    primary key (item_id, partition)
);

create or replace view topic_totals as
select
    topic_id,
    sum(attempts)::bigint as attempts,
    sum(correct)::bigint as correct,
    sum(learners)::bigint as learners
from topic_partials
group by topic_id;

create or replace view item_totals as
select
    item_id,
    sum(attempts)::bigint as attempts,
    sum(correct)::bigint as correct,
    sum(expected) as expected,
    sum(variance) as variance
from item_partials
group by item_id;
