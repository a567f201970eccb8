-- Why: a journal whose end was cut off, or which was rewritten whole, is found by what is known of it outside its store: the
-- newest signed head of each incarnation. It is a witness against the store and no fact read from it, so it does not go when
-- an incarnation is written anew or is no longer in the store; only a later head replaces it, or its database going.

create table journal_head (
    database_name text not null references farshore_database (name) on delete cascade,
    store text not null,
    incarnation text not null,
    store_id text not null,
    sequence bigint not null,
    chain text not null,
    timeline bigint not null,
    end_offset bigint not null,
    generation bigint not null,
    signed_at bigint not null,
    signing_key text not null,
    signature text not null,
    primary key (database_name, store, incarnation)
);
