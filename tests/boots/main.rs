//! Tests that boot machines, in one program, of which `make test` runs parts beside each other.

mod federation;
mod host_acpi;
mod machine_bound;
mod packager;
mod profiles;
mod sealed_boot;
mod workload;
