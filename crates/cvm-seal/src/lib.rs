//! cvm-seal
