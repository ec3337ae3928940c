//! What holds of the repository as a whole, read from its sources.

mod codes;
mod pages;
mod sources;
