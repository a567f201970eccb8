-- Why: whoever asks for work over a network may lose the answer. With the same key they may ask again, and work is begun once.
-- A row stands for one answer that was given, and is made in the transaction that puts the job into the queue; it is kept for a day.
-- asked_by names the token or the user by what no other ever has, so that nobody meets another's keys.

create table idempotency (
    asked_by text not null,
    idempotency_key text not null,
    request text not null,
    answer text not null,
    job text not null,
    created_at bigint not null,
    primary key (asked_by, idempotency_key)
);
create index idempotency_by_age on idempotency (created_at);
