//! Evidence formats, against recorded ones.

mod eventlog;
