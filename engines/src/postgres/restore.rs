//! Turns an unpacked base backup and its log into a PostgreSQL that is safe to start.
//!
//! The order of a restore, each step another file's job:
//! 1. [`beneath`] writes the backup's files below one root (and approved tablespaces), whatever the store says.
//!    The caller writes `global/pg_control` last: without it, what a crash leaves behind cannot be started.
//! 2. [`control`] reads that file: who the cluster is and which limits its log demands.
//! 3. [`safe_start`] decides the configuration and what is neutralised; [`install`] puts it in place.
//! 4. [`bin`] finds the binaries of the very major; [`server`] starts them and believes only what the server
//!    itself answers; [`watch`] says whether it still moves.
//!
//! What always holds: nothing outside the root is written by steps 1 and 3; the started server cannot archive,
//! connect to another server, run a library or a job of its source, or be reached by anyone but its owner; a
//! restore succeeds only at exactly the position that was promised.
//!
//! What cannot be neutralised by configuration: replaying the creation of a tablespace makes, and on some majors
//! first empties, the directory that the *source* named. [`safe_start::tablespaces_in_the_way`] decides whether a
//! restore on this machine may run; its caller knows the log.
//!
//! It does not fetch from the store: the applier does.

pub mod beneath;
pub mod bin;
pub mod control;
pub mod drill;
pub mod install;
pub mod safe_start;
pub mod server;
pub mod watch;
