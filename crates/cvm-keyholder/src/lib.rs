//! cvm-keyholder
