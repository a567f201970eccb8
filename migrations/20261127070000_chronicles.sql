-- Why: when a promise did not hold, and who did what, are implied by no object of a store: a lost catalog lost both. They are sealed into the stores as
-- chronicles (journal/FORMAT.md section 14).
-- exposure_event is the ledger: append only, each event with a digest of itself and of the one before, by database. exposure_watch is what the last
-- look at a promise found, so that time in which nobody looked is an entry too. chronicle says from which entry on this catalog writes, and that the
-- stores were asked before it did; chronicle_seal how far each store has it.

create table exposure_event (
    database_name text not null,
    number bigint not null,
    at_us bigint not null,
    promise text not null,
    what text not null,
    from_us bigint not null,
    until_us bigint not null,
    whys text not null,
    worst_ms bigint,
    objective_ms bigint not null,
    former text not null,
    digest text not null,
    primary key (database_name, number)
);

create table exposure_watch (
    database_name text not null,
    promise text not null,
    looks bigint not null,
    body text,
    primary key (database_name, promise)
);

create table chronicle (
    name text not null primary key,
    first_number bigint not null,
    settled_us bigint
);

create table chronicle_seal (
    chronicle text not null,
    store text not null,
    number bigint not null,
    digest text not null,
    at_us bigint not null,
    trouble text,
    primary key (chronicle, store)
);
