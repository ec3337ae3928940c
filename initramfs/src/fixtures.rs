//! What tests of several modules begin with.

use cvm_base::{Bytes16, Bytes32};
use cvm_layout::manifest::{
    KeyHolder, KeyPurpose, Manifest, PartyShare, PlacedPartition, RootPartition, SplitKey, VERSION,
    Verity, Volume,
};

pub const MIB: u64 = 1 << 20;

/// A consistent manifest; also the fuzz seeds' source.
pub fn manifest() -> Manifest {
    let names = ["ESP", "boot", "root", "config", "jobs", "data"];
    let place = |(i, name): (usize, &&str)| PlacedPartition {
        number: i as u32 + 1,
        name: name.parse().unwrap(),
        offset: (i as u64 * 64 + 1) * MIB,
        length: 64 * MIB,
    };
    let verity = Verity {
        data_bytes: MIB,
        total_bytes: 2 * MIB,
        salt: Bytes32 { 0: [1; 32] },
        root_hash: Bytes32 { 0: [2; 32] },
    };
    // The X25519 base point is a public key like any other.
    let mut point = [0; 32];
    point[0] = 9;
    let party = |name: &str, purposes| PartyShare {
        name: name.parse().unwrap(),
        public: Bytes32 { 0: point },
        purposes,
        keyholder: KeyHolder {
            url: "https://10.0.2.2:8999".into(),
            certificate_sha256: Bytes32 { 0: [3; 32] },
        },
        policy_sha256: Bytes32 { 0: [4; 32] },
    };
    Manifest {
        version: VERSION,
        image_id: Bytes16 { 0: [5; 16] },
        project: "demo".parse().unwrap(),
        site: "server1".parse().unwrap(),
        role: cvm_layout::names::Role::Server,
        partitions: names.iter().enumerate().map(place).collect(),
        config: verity.clone(),
        root: RootPartition {
            sealed_bytes: 8 * MIB,
            system: Volume { offset: 0, verity: verity.clone() },
            site: Volume { offset: 2 * MIB, verity },
            state_offset: 8 * MIB,
        },
        split_key: SplitKey {
            ephemeral: Bytes32 { 0: point },
            transcript: Bytes32 { 0: [6; 32] },
            parties: vec![
                party("model-owner", vec![KeyPurpose::System, KeyPurpose::Jobs]),
                party("data-owner", vec![KeyPurpose::Jobs]),
            ],
        },
        init_code_sha256: Bytes32 { 0: [7; 32] },
        gpu: None,
        build: Some("demo-1".parse().unwrap()),
    }
}
