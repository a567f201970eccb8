-- Why: what was told and what was heard are two things: a channel that was down when an alarm began has to be told of it when it is back, one that never
-- heard of the beginning need not be told of the end, and one that heard it must be. A row is what a channel last took of a database and a topic
-- (word and mark; took is when that was told, all null before it took anything), and how it stands with what is to be told now: trying is when that was
-- told, tries how often this was tried, and before next_at nobody tries it again. notice.delivered means nothing any more.

create table notice_heard (
    channel text not null,
    database_name text not null,
    topic text not null,
    word text,
    mark bigint not null,
    took bigint,
    trying bigint not null,
    tries bigint not null,
    next_at bigint not null,
    primary key (channel, database_name, topic)
);
