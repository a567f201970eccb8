-- Why: long work is asked for, followed, ended and accounted for in one place, whoever asked and whichever process does it.
-- docs/adr/2026-11-26-jobs-in-the-catalog.md says what the columns mean for who may do what.
--
-- A job outlives its database and the process that did it, so it refers to neither. spec, result and problem are JSON. attempt counts
-- claims; beat rises while whoever holds the job lives; silent is 1 when it was called failed because nothing was heard.

create table job (
    id text not null primary key,
    kind text not null,
    database_name text,
    spec text not null,
    asked_by text not null,
    asked_via text not null,
    asked_at bigint not null,
    wanted_node text,
    state text not null,
    attempt bigint not null,
    holder_node text,
    holder_process text,
    beat bigint not null,
    silent bigint not null,
    phase text,
    done_bytes bigint,
    total_bytes bigint,
    log_at_us bigint,
    eta_us bigint,
    started_at bigint,
    finished_at bigint,
    updated_at bigint not null,
    cancel_by text,
    cancel_at bigint,
    result text,
    problem text
);
create index job_by_state on job (state, asked_at, id);
create index job_by_age on job (asked_at, id);
create index job_by_database on job (database_name, asked_at, id);
