//! What holds of the repository as a whole, read from cargo and from its sources.

mod codes;
mod features;
mod guest_crates;
mod links;
mod modules;
mod pages;
mod sources;
