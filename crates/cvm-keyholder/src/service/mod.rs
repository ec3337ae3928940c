//! The network side: TLS, HTTP/1.1, bounds on everything, and a clean end.

mod folder;
mod halves;
mod http;
mod run;
mod shared;

pub use run::{Config, Service, serve};

pub use crate::limit::Limits;
