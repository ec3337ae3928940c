//! cvm-image
