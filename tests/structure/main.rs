//! How the workspace is built of crates and modules, read from cargo and from the sources.

mod links;
mod modules;
