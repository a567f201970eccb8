-- Why: a store may hold the newest entries of a chronicle and not the ones before, where it was added later or was away. How far it has it is two numbers, then:
-- from which entry on it holds them without a hole, and up to which. once_number is where it began once: lower than that while it has lost what it confirmed, so
-- that what was deleted stays said when newer entries are sealed behind it.
-- From where on the rows of before have it nobody wrote down: from their newest entry on, which is known, and not from 1, which nobody may ever have put there.

alter table chronicle_seal add column first_number bigint not null default 1;
alter table chronicle_seal add column once_number bigint not null default 1;
update chronicle_seal set first_number = number, once_number = number where number > 0;
