//! Attacks on the guard, other programs that read what we make, and a guest that opens it.

mod guard;
mod guest;
mod interop;
