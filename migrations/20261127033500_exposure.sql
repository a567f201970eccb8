-- Why: whether a promise held is a question about the past, and a shipping row tells of now alone. One row for each database and hour: a row
-- for each minute would be sixty times as many. body holds a minute each, as `MM:worst`, in milliseconds, a `?` behind it where some look
-- of that minute found nobody who knew, and `;`. A minute that is not there was not looked at: that is not the same as nothing to lose.

create table exposure_hour (
    database_name text not null references farshore_database (name) on delete cascade,
    hour_us bigint not null,
    body text not null,
    primary key (database_name, hour_us)
);
create index exposure_hour_by_age on exposure_hour (hour_us);
