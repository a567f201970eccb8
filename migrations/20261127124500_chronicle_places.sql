-- Why: a store may hold the newest entries of a chronicle and not the ones before, where it was added later or was away. How far it has it is two numbers, then:
-- from which entry on it holds them without a hole, and up to which.

alter table chronicle_seal add column first_number bigint not null default 1;
