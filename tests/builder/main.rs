//! What the builder's program says, keeps and leaves, without a machine that boots.

mod bad_input;
mod leaves_nothing;
mod programs;
