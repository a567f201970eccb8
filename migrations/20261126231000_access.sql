-- Why: who may ask the service. A token is for a program, a local user and his sessions are for a person. Of every secret only a digest
-- stands here, which nobody can turn back into the secret; of a password its argon2id hash. Nothing of this is in a store: with the
-- catalog it is lost, and `catalog rebuild` cannot bring it back.

-- secret_digest: SHA-256 of a secret of 256 random bits. database_name: the only database that the token may see; null means all of them.
-- It names no row, since a catalog that is made anew learns of its databases later than of its tokens.
create table access_token (
    id text not null primary key,
    name text not null,
    role text not null,
    secret_digest text not null,
    database_name text,
    created_at bigint not null,
    expires_at bigint,
    last_used_at bigint,
    revoked_at bigint
);
-- A name is free again once its token was revoked, so that a token can be replaced under its own name.
create unique index access_token_by_name on access_token (name) where revoked_at is null;

create table access_user (
    name text not null primary key,
    role text not null,
    password_hash text not null,
    disabled bigint not null,
    created_at bigint not null
);

-- id: SHA-256 of the cookie's secret. A user's sessions end when he is disabled or gets another password.
create table access_session (
    id text not null primary key,
    user_name text not null references access_user (name) on delete cascade,
    created_at bigint not null,
    expires_at bigint not null
);
create index access_session_by_user on access_session (user_name);
create index access_session_by_expiry on access_session (expires_at);
