//! TDX: the handoff is in RTMR3, and Intel's collateral says what the platform is worth.

use std::sync::{Arc, atomic::Ordering};

use cvm_agent::{
    agent::Agent,
    attester::{OpenDevice, TeeAttester},
};
use cvm_base::{Bytes, Explain as _};
use cvm_collateral::{Item, Writer, content, tee::Vendors};
use cvm_collect::{CollectError, Device, Kind, Raw};
use cvm_evidence::{
    platform::TdxReference, reference::Platforms, rtmr, td_handoff_digest, td_jobs_digest,
};
use cvm_layout::names::Role;
use cvm_peer::clock;
use cvm_verify::{snp::SnpRoots, x509::Certificate};
use ed25519_dalek::SigningKey;
use serde_json::json;

use crate::{
    NOW,
    common::{Federation, Site, challenge, code, peer, token, verify},
    mint::{Mint, td10},
};

const ZEROS: Bytes<48> = Bytes([0; 48]);

/// One TD, as far as its quotes say.
#[derive(Clone)]
struct Td {
    mint: Arc<Mint>,
    /// Before the handoff, or after it.
    handed_off: bool,
    change: fn(&mut [u8]),
}

impl Device for Td {
    fn kind(&self) -> Kind {
        Kind::Tdx
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let mut body = td10([5, 0, 6]);
        if self.handed_off {
            body[472..520].copy_from_slice(&rtmr::extend(&ZEROS, &td_handoff_digest()).0);
        }
        body[520..584].copy_from_slice(report_data);
        (self.change)(&mut body);
        Ok(Raw::Tdx { quote: self.mint.quote(4, &body) })
    }
}

fn platforms() -> Platforms {
    let tdx = TdxReference {
        platform: "test".into(),
        mrtd: Bytes([0x11; 48]),
        rtmr0: ZEROS,
        rtmr1: ZEROS,
        rtmr2: ZEROS,
        rtmr3: ZEROS,
        events: vec![],
    };
    Platforms { tdx: vec![tdx], ..Platforms::default() }
}

fn vendors(mint: &Mint) -> Vendors {
    Vendors::new(
        SnpRoots::amd().unwrap().clone(),
        vec![Certificate::from_der(&mint.root.der).unwrap()],
    )
}

/// What the site's collector packed, and the collector's public key in hex.
fn collateral(mint: &Mint, advisories: &[&str]) -> (Vec<u8>, String) {
    let collector = SigningKey::from_bytes(&[7; 32]);
    let mut tcb_info = crate::documents::tcb_info();
    tcb_info["tcbLevels"][1]["advisoryIDs"] = json!(advisories);
    let mut document = mint.collateral(&tcb_info, &crate::documents::qe_identity());
    document["pck_crl_issuer_chain"] = json!([&*mint.ca.pem, &mint.root.pem].concat());
    let (key, bytes) = content::identify(&serde_json::to_vec(&document).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), collector.clone(), &[]).unwrap();
    writer.put(&Item { key, bytes, source: "a test".into(), fetched_at: NOW }).unwrap();
    drop(writer);
    let cache = cvm_collateral::Cache::open(folder.path(), &[collector.verifying_key()]).unwrap();
    (cache.pack(), hex::encode(collector.verifying_key().to_bytes()))
}

fn agent(site: &Site, td: &Td, vendors: Vendors, collateral: &[u8]) -> Agent {
    let behind = i64::try_from(NOW).unwrap() - i64::try_from(clock::now()).unwrap();
    site.offset.store(behind, Ordering::Relaxed);
    let mut own = site.own_image();
    own.trust = own.trust.with_vendors(vendors);
    let td = td.clone();
    let open: OpenDevice = Box::new(move || Ok(Box::new(td.clone())));
    site.agent_with(own, Box::new(TeeAttester::new(open, collateral).unwrap()))
}

#[test]
fn two_sites_on_tdx_verify_each_other_with_intels_collateral() {
    let (federation, mint) = (Federation::hold(), Arc::new(Mint::new()));
    let machine = |name, role| federation.tee_site(name, role, platforms());
    let (server, client) = (machine("server1", Role::Server), machine("site-1", Role::Client));
    let td = Td { mint: mint.clone(), handed_off: true, change: |_| {} };
    let (packed, collector) = collateral(&mint, &[]);
    // p4 says whom a machine believes.
    server.write("config/collateral.pub", format!("{collector}\n").as_bytes());
    let key = cvm_collateral::read_public_key(&server.at("config/collateral.pub")).unwrap();
    let believes = || vendors(&mint).with_collectors(vec![key]);
    let at_server = agent(&server, &td, believes(), &packed);
    at_server.verify_self(&[]).unwrap();
    let ask_client = |collateral: &[u8]| {
        let at_client = agent(&client, &td, vendors(&mint), collateral);
        // A vendor's list does not stop a machine that runs.
        at_client.verify_self(&[]).unwrap();
        let asked = challenge(&at_server, "site-1");
        verify(
            &at_server,
            &token(&at_client, Some(&asked)),
            &peer("site-1", "client"),
            Some(&asked),
        )
    };
    let accepted = ask_client(&packed);
    assert_eq!(accepted["verified"], true, "{accepted}");
    let tdx = &accepted["claims"]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tdx"];
    assert_eq!((&tdx["phase"], &tdx["tcb_status"]), (&json!("after-handoff"), &json!("UpToDate")));
    assert_eq!(tdx["collateral"]["collector"], collector);
    // RTMR0, which covers the ACPI tables of the peer's host, is the reference's.
    assert_eq!(accepted["not_checked"], json!(["event-log"]));

    // Without it nobody knows what Intel thinks of the platform; with it, it may be nothing good.
    let refused = ask_client(b"");
    assert_eq!(code(&refused), "AGT-033");
    assert!(refused["reason"].as_str().unwrap().contains("tcb-status"), "{refused}");
    let (old, _) = collateral(&mint, &["INTEL-SA-00001"]);
    let refused = ask_client(&old);
    assert_eq!(code(&refused), "AGT-033");
}

#[test]
fn a_td_whose_job_store_opened_late_runs_as_any_other() {
    let (federation, mint) = (Federation::hold(), Arc::new(Mint::new()));
    let client = federation.tee_site("site-1", Role::Client, platforms());
    let opened = |body: &mut [u8]| {
        let handed_off = Bytes(body[472..520].try_into().unwrap());
        body[472..520].copy_from_slice(&rtmr::extend(&handed_off, &td_jobs_digest()).0);
    };
    let td = Td { mint: mint.clone(), handed_off: true, change: opened };
    agent(&client, &td, vendors(&mint), b"").verify_self(&[]).unwrap();
}

#[test]
fn attack_a_td_before_its_handoff_and_one_of_another_image() {
    let (federation, mint) = (Federation::hold(), Arc::new(Mint::new()));
    let client = federation.tee_site("site-1", Role::Client, platforms());
    let genuine = Td { mint: mint.clone(), handed_off: true, change: |_| {} };
    agent(&client, &genuine, vendors(&mint), b"").verify_self(&[]).unwrap();
    let refused = |td: Td| agent(&client, &td, vendors(&mint), b"").verify_self(&[]).unwrap_err();
    let boot = refused(Td { handed_off: false, ..genuine.clone() });
    assert_eq!(boot.code(), "AGT-032");
    assert!(boot.to_string().contains("before the handoff"), "{boot}");
    // MRTD, RTMR2, and RTMR3 beyond the handoff.
    for change in [
        |body: &mut [u8]| body[136] ^= 1,
        |body: &mut [u8]| body[424] ^= 1,
        |body: &mut [u8]| body[472] ^= 1,
    ] {
        assert_eq!(refused(Td { change, ..genuine.clone() }).code(), "AGT-032");
    }
    assert_eq!(
        refused(Td { change: |body| body[120] |= 1, ..genuine.clone() }).code(),
        "AGT-031",
        "debug mode"
    );
    let foreign = Td { mint: Arc::new(Mint::new()), ..genuine };
    assert_eq!(refused(foreign).code(), "AGT-031", "not Intel's");
}
