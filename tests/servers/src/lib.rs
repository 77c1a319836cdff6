//! Real servers and Millrace's own programs, as processes of whoever starts them: etcd, PostgreSQL, MariaDB, masters,
//! executors; in temporary folders, on free ports, behind a command such as `ip netns exec m1` where a [`Place`] says so.
//!
//! A server owns its folder and every process that belongs to it. It can be killed, frozen, thawed and started again on
//! the same data and ports. When it is dropped, also by a panic, all of that is ended, and looked for until none is left.
//!
//! What does not work here panics with what was tried: these are the hands of a test, which fails then. Nothing waits
//! for a fixed time, and whatever is waited for has a bound.

#![expect(clippy::expect_used, reason = "a test that cannot start its servers fails")]

pub mod certificates;
pub mod client;
pub mod etcd;
pub mod home;
pub mod mariadb;
pub mod place;
pub mod port;
pub mod postgres;
pub mod process;
pub mod program;
pub mod programs;
mod template;

pub use self::{
    certificates::Certificates,
    etcd::Etcd,
    home::Home,
    mariadb::MariaDb,
    place::Place,
    port::Port,
    postgres::Postgres,
    process::{PATIENCE, Process, wait_until},
    program::{Executor, Master, Program},
    programs::{built, skipped},
};
