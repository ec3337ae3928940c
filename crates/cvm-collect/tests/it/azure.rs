//! Azure's vTPM, played by swtpm: its paravisor's report and key are put there first.

use cvm_collect::{azure::Azure, tpm::Tpm};
use cvm_evidence::tpm::parse_quote;
use cvm_testkit::swtpm::Swtpm;
use sha2::{Digest as _, Sha256};
use tss_esapi::{
    Context, TctiNameConf,
    attributes::{NvIndexAttributesBuilder, ObjectAttributesBuilder},
    handles::{NvIndexTpmHandle, PersistentTpmHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        dynamic_handles::Persistent,
        key_bits::RsaKeyBits,
        resource_handles::{Hierarchy, NvAuth, Provision},
        session_handles::AuthSession,
    },
    structures::{
        HashScheme, MaxNvBuffer, NvPublicBuilder, PublicBuilder, PublicKeyRsa,
        PublicRsaParametersBuilder, RsaExponent, RsaScheme,
    },
};

use super::*;

/// Header, hardware report, five numbers, runtime data.
fn hcl_report(user_data: &[u8; 64]) -> Vec<u8> {
    let json = format!("{{\"user-data\":\"{}\"}}", hex::encode_upper(user_data));
    let mut report = b"HCLA".to_vec();
    report.resize(0x4d0, 0);
    report.extend((json.len() as u32).to_le_bytes());
    report.extend(json.as_bytes());
    report
}

fn prepare(swtpm: &Swtpm, report: &[u8]) {
    let mut context = Context::new(swtpm.tcti().parse::<TctiNameConf>().unwrap()).unwrap();
    context.execute_with_session(Some(AuthSession::Password), |context| {
        let attributes = NvIndexAttributesBuilder::new()
            .with_owner_write(true)
            .with_owner_read(true)
            .build()
            .unwrap();
        let public = NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(0x0140_0001).unwrap())
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(report.len())
            .build()
            .unwrap();
        let index = context.nv_define_space(Provision::Owner, None, public).unwrap();
        for (at, chunk) in report.chunks(512).enumerate() {
            let chunk = MaxNvBuffer::try_from(chunk.to_vec()).unwrap();
            context.nv_write(NvAuth::Owner, index, chunk, (at * 512) as u16).unwrap();
        }
        let attributes = ObjectAttributesBuilder::new()
            .with_fixed_tpm(true)
            .with_fixed_parent(true)
            .with_sensitive_data_origin(true)
            .with_user_with_auth(true)
            .with_restricted(true)
            .with_sign_encrypt(true)
            .build()
            .unwrap();
        let parameters = PublicRsaParametersBuilder::new_unrestricted_signing_key(
            RsaScheme::RsaSsa(HashScheme::new(HashingAlgorithm::Sha256)),
            RsaKeyBits::Rsa2048,
            RsaExponent::default(),
        );
        let public = PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes)
            .with_rsa_parameters(parameters.with_restricted(true).build().unwrap())
            .with_rsa_unique_identifier(PublicKeyRsa::default())
            .build()
            .unwrap();
        let key = context.create_primary(Hierarchy::Owner, public, None, None, None, None).unwrap();
        let handle = Persistent::Persistent(PersistentTpmHandle::new(0x8100_0003).unwrap());
        context.evict_control(Provision::Owner, key.key_handle.into(), handle).unwrap();
        context.flush_context(key.key_handle.into()).unwrap();
    });
}

#[test]
fn report_and_quote_are_bound_to_the_challenge() {
    let swtpm = Swtpm::new();
    prepare(&swtpm, &hcl_report(&ASKED));
    let mut device =
        Azure::open(Tpm::open(&swtpm.tcti()).unwrap()).unwrap().with_patience(Duration::ZERO);
    // Twice: the first one makes the index for the guest's data.
    for _ in 0..2 {
        let Raw::Azure { hcl_report: report, quote, signature, pcrs } =
            device.evidence(&ASKED).unwrap()
        else {
            panic!()
        };
        assert_eq!(report, hcl_report(&ASKED));
        let parsed = parse_quote(&quote).unwrap();
        assert_eq!(parsed.nonce, ASKED[..32]);
        assert_eq!(parsed.pcr_digest[..], Sha256::digest(pcrs.concat())[..]);
        assert_eq!((signature.len(), pcrs.len()), (256, 24));
    }
    // A paravisor that does not follow.
    let error = device.evidence(&[1; 64]).unwrap_err();
    assert_eq!(error.code(), "ATT-368", "{error}");
}

#[test]
fn another_tpm_is_not_azures() {
    let swtpm = Swtpm::new();
    let error = Azure::open(Tpm::open(&swtpm.tcti()).unwrap()).err().unwrap();
    assert_eq!(error.code(), "ATT-365", "{error}");
    let swtpm = Swtpm::new();
    prepare(&swtpm, b"not one of the paravisor's");
    let error = Azure::open(Tpm::open(&swtpm.tcti()).unwrap()).err().unwrap();
    assert_eq!(error.code(), "ATT-367", "{error}");
}
