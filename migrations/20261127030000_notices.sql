-- Why: of several services that share a catalog one tells a person, once. A row is what was last told of a database and a topic (how it stands, work
-- of a kind); whoever changes it from what it was, tells. mark tells one failure from the next; turns counts recoveries of late, so that what
-- flaps is told less often; delivered is 1 once a channel took it: what nobody took is told again, by any service.

create table notice (
    database_name text not null,
    topic text not null,
    word text not null,
    mark bigint not null,
    turns bigint not null,
    told_at bigint not null,
    node text not null,
    delivered bigint not null,
    primary key (database_name, topic)
);
