//! SEV-SNP.

use std::sync::Arc;

use cvm_agent::{agent::Agent, attester::TeeAttester};
use cvm_collateral::tee::Vendors;
use cvm_collect::{Raw, Recorded};
use cvm_evidence::{reference::Platforms, tcb::TcbFloor, trustee::report_data};
use cvm_layout::names::Role;
use cvm_peer::token::Token;
use serde_json::json;

use crate::{
    chip::{Chip, MEASUREMENT, Maker, device, platforms},
    common::{Federation, Site, ask, challenge, code, peer, token, verify},
};

/// An agent of this machine on that chip, which believes these vendors.
fn agent(site: &Site, chip: &Arc<Chip>, vendors: Vendors) -> Agent {
    let mut own = site.own_image();
    own.trust = own.trust.with_vendors(vendors);
    site.agent_with(own, Box::new(TeeAttester::new(device(chip), b"").unwrap()))
}

#[test]
fn two_sites_on_snp_verify_each_other() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let machine = |name, role| federation.tee_site(name, role, platforms(MEASUREMENT));
    let (server, client) = (machine("server1", Role::Server), machine("site-1", Role::Client));
    let (at_server, at_client) = (
        agent(&server, &maker.chip(), maker.vendors()),
        agent(&client, &maker.chip(), maker.vendors()),
    );
    at_server.verify_self(&[]).unwrap();
    at_client.verify_self(&[]).unwrap();
    assert_eq!(ask(&at_client, json!({"op": "status"}))["kinds"], json!(["snp"]));

    let asked = challenge(&at_server, "site-1");
    let accepted = verify(
        &at_server,
        &token(&at_client, Some(&asked)),
        &peer("site-1", "client"),
        Some(&asked),
    );
    assert_eq!(accepted["verified"], true, "{accepted}");
    let snp = &accepted["claims"]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"];
    assert_eq!((&snp["phase"], &snp["trust"]), (&json!("not-shown"), &json!("tee")));
    // Said, and accepted by name: AMD's list was not at hand, and nobody expects anything of the
    // host's data.
    assert_eq!(accepted["not_checked"], json!(["acpi", "certificate-revocation", "host-data"]));
    let asked = challenge(&at_client, "server1");
    let accepted = verify(
        &at_client,
        &token(&at_server, Some(&asked)),
        &peer("server1", "server"),
        Some(&asked),
    );
    assert_eq!(accepted["verified"], true, "{accepted}");
}

#[test]
fn attack_a_machine_that_launched_something_else() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let server = federation.tee_site("server1", Role::Server, platforms(MEASUREMENT));
    let at_server = agent(&server, &maker.chip(), maker.vendors());
    at_server.verify_self(&[]).unwrap();
    let of_site_1 = |site: &Site, chip: &Arc<Chip>| {
        let at_client = agent(site, chip, maker.vendors());
        // Who launched something else also lies to its own agent's verification.
        let refused = at_client.verify_self(&[]).unwrap_err();
        (refused.code(), forged(&at_server, site, chip))
    };
    use cvm_base::Explain as _;

    // A genuine chip, another launch digest than the image's.
    let client = federation.tee_site("site-1", Role::Client, platforms(MEASUREMENT));
    let other = maker.chip_that(|report| report[0x90] ^= 1, true);
    assert_eq!(of_site_1(&client, &other), ("AGT-032", "AGT-032".into()));
    // Firmware below the image's floor had launched it.
    let old = maker.chip_that(|report| report[0x1f6] -= 1, true);
    assert_eq!(of_site_1(&client, &old), ("AGT-032", "AGT-032".into()));
    // A floor of earlier reference values, which named no product, and one of other machines.
    for floor in [TcbFloor::default(), "genoa=3.1.20.213".parse().unwrap()] {
        let mut elsewhere = platforms(MEASUREMENT);
        elsewhere.snp[0].tcb_floor = floor;
        let elsewhere = federation.tee_site("site-1", Role::Client, elsewhere);
        assert_eq!(of_site_1(&elsewhere, &maker.chip()), ("AGT-032", "AGT-032".into()));
    }
    // The image has no reference values for this TEE: only a policy of one's own could know better.
    let unknown = federation.tee_site("site-1", Role::Client, Platforms::default());
    assert_eq!(of_site_1(&unknown, &maker.chip()), ("AGT-033", "AGT-033".into()));
    // Debug mode, and a requester at a lower privilege level.
    let debug = maker.chip_that(|report| report[0x0a] |= 0x08, true);
    assert_eq!(of_site_1(&client, &debug), ("AGT-031", "AGT-031".into()));
    let lower = maker.chip_that(|report| report[0x30] = 1, true);
    assert_eq!(of_site_1(&client, &lower), ("AGT-031", "AGT-031".into()));
    // A chip of another maker, and one for which nobody vouches.
    assert_eq!(of_site_1(&client, &Maker::new().chip()), ("AGT-031", "AGT-031".into()));
    assert_eq!(of_site_1(&client, &maker.chip_that(|_| {}, false)), ("AGT-031", "AGT-031".into()));
}

/// What a verifier says to a token that the machine's root made without its agent's consent.
fn forged(verifier: &Agent, site: &Site, chip: &Arc<Chip>) -> String {
    let text = made_by_root(site, chip);
    let mut site_1 = peer("site-1", "client");
    site_1["tls_cert_sha256"] = json!(null);
    code(&verify(verifier, &text, &site_1, None)).to_owned()
}

fn made_by_root(site: &Site, chip: &Arc<Chip>) -> String {
    use cvm_agent::attester::Attester as _;
    let own = site.own_image();
    let statement = site.statement(&own);
    let evidence =
        TeeAttester::new(device(chip), b"").unwrap().evidence(&statement.digest()).unwrap();
    let documents = own.documents.clone();
    Token { statement, evidence, additional_evidence: None, documents, ak_certificates: vec![] }
        .text()
        .unwrap()
}

/// Evidence that was recorded answers what it was recorded for, and nothing else.
#[test]
fn attack_a_recorded_report() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let machine = |name, role| federation.tee_site(name, role, platforms(MEASUREMENT));
    let (server, client) = (machine("server1", Role::Server), machine("site-1", Role::Client));
    let at_server = agent(&server, &maker.chip(), maker.vendors());
    at_server.verify_self(&[]).unwrap();

    // The device of the machine is a recording of a genuine token's report.
    let chip = maker.chip();
    let genuine = Token::parse(&made_by_root(&client, &chip)).unwrap();
    let report = chip.report(&report_data(&genuine.statement.digest()));
    let certificate = |bytes: &[u8]| cvm_collect::SnpCertificate {
        kind: cvm_collect::CertificateKind::Vcek,
        bytes: bytes.to_vec(),
    };
    let folder = tempfile::tempdir().unwrap();
    let raw = Raw::Snp { report, certificates: vec![certificate(chip.vcek())] };
    Recorded::write(folder.path(), &raw).unwrap();
    let recorded = |replay: bool| {
        let path = folder.path().to_owned();
        let open: cvm_agent::attester::OpenDevice = Box::new(move || {
            let device = Recorded::open(&path)?;
            Ok(Box::new(if replay { device.replaying() } else { device }))
        });
        let mut own = client.own_image();
        own.trust = own.trust.with_vendors(maker.vendors());
        client.agent_with(own, Box::new(TeeAttester::new(open, b"").unwrap()))
    };
    use cvm_base::Explain as _;
    // The recording refuses another statement; one that answers everything is seen through by the
    // agent itself, and by every peer.
    assert_eq!(recorded(false).verify_self(&[]).unwrap_err().code(), "AGT-005");
    assert_eq!(recorded(true).verify_self(&[]).unwrap_err().code(), "AGT-031");
    let mut changed = genuine.clone();
    changed.statement.expires_at += 1;
    let mut site_1 = peer("site-1", "client");
    site_1["tls_cert_sha256"] = json!(null);
    assert_eq!(code(&verify(&at_server, &changed.text().unwrap(), &site_1, None)), "AGT-031");
    // Unchanged it is the genuine token, once.
    let text = genuine.text().unwrap();
    assert_eq!(verify(&at_server, &text, &site_1, None)["verified"], true);
    assert_eq!(code(&verify(&at_server, &text, &site_1, None)), "AGT-016");
}

#[test]
fn a_policy_of_ones_own_may_know_what_the_image_measures() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let (server, client) = (
        federation.tee_site("server1", Role::Server, platforms(MEASUREMENT)),
        federation.tee_site("site-1", Role::Client, Platforms::default()),
    );
    let text = format!(
        "package policy\ndefault allow := false\n\
         accepted_not_checked := {{\"acpi\", \"certificate-revocation\", \"host-data\"}}\n\
         allow if input.submods.cpu0[\"ear.veraison.annotated-evidence\"]\
             .snp.measurement == \"{}\"",
        "3e".repeat(48)
    );
    server.write("config/policies/cross.rego", text.as_bytes());
    let at_server = agent(&server, &maker.chip(), maker.vendors());
    at_server.verify_self(&[]).unwrap();
    let mut site_1 = peer("site-1", "client");
    site_1["tls_cert_sha256"] = json!(null);
    let known = made_by_root(&client, &maker.chip());
    assert_eq!(verify(&at_server, &known, &site_1, None)["verified"], true);
    let other = maker.chip_that(|report| report[0x90] ^= 1, true);
    assert_eq!(code(&verify(&at_server, &made_by_root(&client, &other), &site_1, None)), "AGT-033");
}
