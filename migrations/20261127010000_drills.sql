-- Why: how long recovery takes is known from drills, and whoever asks for proof asks for all of them, the failed ones too. A drill outlives its database, its job
-- and its incarnation, so it refers to none of them.
--
-- statement is the text that a certificate signs, as it is in the store; signing_key and signature are null where there is none, and uncertified then says why.

create table drill (
    id text not null primary key,
    database_name text not null,
    store text not null,
    incarnation text not null,
    verdict text not null,
    began_at bigint not null,
    ended_at bigint not null,
    recovery_us bigint,
    objective_us bigint,
    statement text not null,
    signing_key text,
    signature text,
    uncertified text
);
create index drill_by_age on drill (began_at, id);
create index drill_by_database on drill (database_name, began_at, id);
