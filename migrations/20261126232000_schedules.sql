-- Why: what falls due by a clock is asked for once, however many services watch it and whichever of them were away. due_us is the newest
-- due time that was answered, by a job or by leaving it out; a schedule that is seen for the first time begins with the last due time
-- before that, so that adding one asks for nothing at once. cron and zone are those that due_us was computed with.

create table schedule (
    database_name text not null,
    kind text not null,
    cron text not null,
    zone text not null,
    due_us bigint not null,
    job text,
    updated_at bigint not null,
    primary key (database_name, kind)
);
