//! cvm-ceremony
