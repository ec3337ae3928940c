//! The whole release with a real TPM, and the attacks on it; each refusal has its own reason in the
//! log.

use std::error::Error;

use crate::common::{
    Ceremony, LOG, OTHER_LOG, Serving, log, rego,
    swtpm::{TpmAttester, boot, root_sha256},
};
use cvm_base::{Bytes, sha256};
use cvm_evidence::handoff_digest;
use cvm_layout::manifest::{ImageId, Manifest, Stage};
use cvm_release::{
    binding::Binding,
    client::{Attested, Challenged, Client, Failure, SealState},
    messages::Tee,
};
use cvm_release_https::{Attester, Holder};
use cvm_release_server::{Effect, Reason, Step, Subject, Verdict};
use cvm_testkit::swtpm::Swtpm;
use serde_json::Value;

struct Scene {
    swtpm: Swtpm,
    ceremony: Ceremony,
    manifest: Manifest,
    serving: Serving,
}

/// A TPM, a ceremony whose policy names its root, an enrolled image, and alice's key holder.
fn scene() -> Scene {
    let swtpm = Swtpm::new();
    let ceremony = Ceremony::hold(&rego(Some(root_sha256(&swtpm))));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &swtpm.roots(), false);
    let serving = Serving::start(&ceremony, &policy, Default::default());
    Scene { swtpm, ceremony, manifest, serving }
}

impl Scene {
    fn image(&self) -> ImageId {
        self.manifest.image_id
    }

    /// Runs the exchange up to the answer to `attest`.
    fn attest(
        &self,
        holder: &Holder,
        attester: &dyn Attester,
    ) -> Result<Client<Attested>, Failure> {
        let challenged = challenged(holder, attester)?;
        let evidence =
            attester.evidence(challenged.extra_params(), &challenged.binding("")).unwrap();
        let reply = holder.send(&challenged.attest_request(evidence, "")?)?;
        challenged.attested(&reply)
    }

    /// The exchange must end at `attest`, with this reason in the log.
    fn refused_at_attest(&self, attester: &dyn Attester, reason: Reason) -> String {
        let failure = self.attest(&self.serving.holder(), attester).map(drop).unwrap_err();
        assert!(
            matches!(
                &failure,
                Failure::Refused { status: 401, error_type, .. }
                    if error_type.ends_with("/AttestationError")
            ),
            "{failure}"
        );
        let (found, detail) = self.serving.last_refusal();
        assert_eq!(found, reason, "{detail}");
        self.logged(reason);
        detail
    }

    /// The exchange must end at the resource, with this reason in the log.
    fn refused_at_release(
        &self,
        image: &ImageId,
        attester: &dyn Attester,
        reason: Reason,
    ) -> String {
        let holder = self.serving.holder();
        let client = self.attest(&holder, attester).unwrap();
        let failure = client
            .half(&holder.send(&client.half_request(image, Stage::Boot)).unwrap())
            .unwrap_err();
        assert!(matches!(failure, Failure::Refused { status: 401, .. }), "{failure}");
        let (found, detail) = self.serving.last_refusal();
        assert_eq!(found, reason, "{detail}");
        self.logged(reason);
        detail
    }

    fn logged(&self, reason: Reason) {
        let store = self.ceremony.store("alice");
        assert_eq!(store.log().unwrap().last().unwrap().decision.reason, Some(reason));
        store.verify_log().unwrap();
    }
}

fn challenged(holder: &Holder, attester: &dyn Attester) -> Result<Client<Challenged>, Failure> {
    let start = Client::new(attester.tee())?;
    let request = start.auth_request(&attester.auth_params().unwrap())?;
    start.challenged(&holder.send(&request)?)
}

/// An attester whose evidence, or what it is made from, is changed on the way.
struct Changed<'a, A: Attester, F: Fn(&mut Value)>(&'a A, F);

impl<A: Attester, F: Fn(&mut Value)> Attester for Changed<'_, A, F> {
    fn tee(&self) -> Tee {
        self.0.tee()
    }
    fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        self.0.auth_params()
    }
    fn evidence(
        &self,
        params: &str,
        binding: &Binding,
    ) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let mut evidence = self.0.evidence(params, binding)?;
        (self.1)(&mut evidence);
        Ok(evidence)
    }
}

#[test]
fn a_genuine_boot_gets_the_half_and_its_seal_is_remembered() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let session = scene.serving.holder().release(&scene.image(), Stage::Boot, &attester).unwrap();
    assert_eq!(session.half(), scene.ceremony.half("alice", &scene.manifest).as_bytes());
    assert_ne!(session.half(), scene.ceremony.half("bob", &scene.manifest).as_bytes());

    assert_eq!(session.seal_state().unwrap(), Some(SealState::default()));
    let header_sha256 = sha256(b"header");
    session.register_seal(header_sha256, None).unwrap();
    session.register_seal(header_sha256, None).unwrap();
    assert_eq!(
        session.seal_state().unwrap(),
        Some(SealState { header_sha256: Some(header_sha256), ..SealState::default() })
    );

    // The next boot is told the same; another header is refused.
    let session = scene.serving.holder().release(&scene.image(), Stage::Boot, &attester).unwrap();
    assert_eq!(
        session.seal_state().unwrap(),
        Some(SealState { header_sha256: Some(header_sha256), ..SealState::default() })
    );
    let failure = session.register_seal(sha256(b"another"), None).unwrap_err().failure;
    assert!(matches!(failure, Failure::Refused { status: 409, .. }), "{failure}");
    scene.logged(Reason::SealMismatch);

    // The operator may forget it, and the log says that he did.
    let store = scene.ceremony.store("alice");
    assert_eq!(store.reset_seal(&scene.image()).unwrap(), Some(header_sha256));
    assert_eq!(session.seal_state().unwrap(), Some(SealState::default()));
    let log = store.log().unwrap();
    let steps: Vec<_> = log.iter().map(|e| (e.decision.step, e.decision.verdict)).collect();
    assert_eq!(
        steps[..3],
        [
            (Step::Enrol, Verdict::Done),
            (Step::Attest, Verdict::Attested),
            (Step::Resource, Verdict::Released)
        ]
    );
    assert_eq!(
        steps[steps.len() - 2..],
        [(Step::SealReset, Verdict::Done), (Step::SealRead, Verdict::Answered)]
    );
    assert_eq!(log[1].decision.detail, "untrusted-host");
    assert_eq!(log[2].decision.peer, "127.0.0.1");
}

#[test]
fn attack_a_quote_over_another_nonce() {
    struct Replayed<'a>(TpmAttester<'a>);
    impl Attester for Replayed<'_> {
        fn tee(&self) -> Tee {
            self.0.tee()
        }
        fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
            self.0.auth_params()
        }
        fn evidence(
            &self,
            params: &str,
            _: &Binding,
        ) -> Result<Value, Box<dyn Error + Send + Sync>> {
            self.0.evidence(params, &Binding([7; 48]))
        }
    }
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    scene.refused_at_attest(&Replayed(TpmAttester::new(&mut tpm, log(LOG))), Reason::WrongNonce);
}

#[test]
fn attack_a_boot_of_other_code() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(OTHER_LOG));
    let attester = TpmAttester::new(&mut tpm, log(OTHER_LOG));
    let detail = scene.refused_at_release(&scene.image(), &attester, Reason::WrongPcr);
    assert!(detail.starts_with("PCR 4: expected \""), "{detail}");
}

#[test]
fn attack_a_log_that_hides_a_measurement() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    tpm.extend_pcr(4, &sha256(b"rootkit")).unwrap();
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let detail = scene.refused_at_attest(&attester, Reason::EvidenceInvalid);
    assert!(detail.contains("PCR 4"), "{detail}");
}

#[test]
fn attack_a_guest_after_its_handoff() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    tpm.extend_pcr(11, &handoff_digest()).unwrap();
    scene.refused_at_release(
        &scene.image(),
        &TpmAttester::new(&mut tpm, log(LOG)),
        Reason::AfterHandoff,
    );
}

#[test]
fn attack_a_tpm_that_nobody_endorses() {
    let scene = scene();
    let own_ca = Swtpm::new();
    let mut tpm = boot(&own_ca, &log(LOG));
    scene.refused_at_attest(&TpmAttester::new(&mut tpm, log(LOG)), Reason::UnknownEk);
}

#[test]
fn attack_an_attestation_key_outside_the_endorsed_tpm() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let guessed = Changed(&attester, |evidence| {
        evidence["activated_credential"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    });
    scene.refused_at_attest(&guessed, Reason::AkNotBound);
    let missing = Changed(&attester, |evidence| {
        drop(evidence.as_object_mut().unwrap().remove("ek_certificate"))
    });
    scene.refused_at_attest(&missing, Reason::AkNotBound);
}

#[test]
fn attack_a_replayed_answer_and_a_replayed_cookie() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let holder = scene.serving.holder();
    let challenged = challenged(&holder, &attester).unwrap();
    let evidence = attester.evidence(challenged.extra_params(), &challenged.binding("")).unwrap();
    let answer = challenged.attest_request(evidence, "").unwrap();
    let client = challenged.attested(&holder.send(&answer).unwrap()).unwrap();
    assert_eq!(holder.send(&answer).unwrap().status, 401);
    assert_eq!(scene.serving.last_refusal().0, Reason::Replayed);
    scene.logged(Reason::Replayed);

    let request = client.half_request(&scene.image(), Stage::Boot);
    client.half(&holder.send(&request).unwrap()).unwrap();
    assert_eq!(holder.send(&request).unwrap().status, 401);
    scene.logged(Reason::ReleasedBefore);
}

#[test]
fn attack_another_images_half() {
    let scene = scene();
    // The other image measures something else; a guest of the first asks for its half.
    let (documents, other) = scene.ceremony.build(2, &log(OTHER_LOG));
    scene.ceremony.store("alice").enrol(&documents).unwrap();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    scene.refused_at_release(&other.image_id, &attester, Reason::WrongPcr);
    scene.refused_at_release(&Bytes([9; 16]), &attester, Reason::NotEnrolled);
}

#[test]
fn what_was_withdrawn_is_refused_as_soon_as_it_is_seen() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let store = scene.ceremony.store("alice");
    scene.serving.holder().release(&scene.image(), Stage::Boot, &attester).unwrap();
    // The log names the chip, here the TPM.
    let chips = store.log().unwrap().into_iter().find_map(|entry| match entry.decision.effect {
        Some(Effect::Attested { chips, .. }) => Some(chips),
        _ => None,
    });
    let [chip] = &chips.unwrap()[..] else { panic!("one TPM") };
    let image = Subject::Image(scene.image());
    let site = Subject::Site("server1".parse().unwrap());
    for subject in [image, site, Subject::Chip(chip.clone())] {
        store.withdraw(subject.clone(), "sold").unwrap();
        let detail = scene.refused_at_attest(&attester, Reason::Withdrawn);
        assert!(
            detail.starts_with(&format!("{subject} was withdrawn at "))
                && detail.ends_with(": sold"),
            "{detail}"
        );
        store.restore(subject).unwrap();
    }
    // Consent to something else was withdrawn: this boot is served, and what it has is what it had.
    store.withdraw(Subject::Image(Bytes([9; 16])), "").unwrap();
    let other = "ab".repeat(32).parse().unwrap();
    store.withdraw(Subject::Chip(other), "").unwrap();
    let session = scene.serving.holder().release(&scene.image(), Stage::Boot, &attester).unwrap();
    store.withdraw(Subject::Image(scene.image()), "").unwrap();
    assert!(session.seal_state().is_err());
    scene.logged(Reason::Withdrawn);
    assert!(session.register_seal(sha256(b"header"), None).is_err());
    scene.logged(Reason::Withdrawn);
}

#[test]
fn attack_a_tampered_cookie() {
    let scene = scene();
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    let attester = TpmAttester::new(&mut tpm, log(LOG));
    let holder = scene.serving.holder();
    let challenged = challenged(&holder, &attester).unwrap();
    let evidence = attester.evidence(challenged.extra_params(), &challenged.binding("")).unwrap();
    let mut answer = challenged.attest_request(evidence, "").unwrap();
    let mut cookie = answer.cookie.take().unwrap().into_bytes();
    cookie[60] ^= 1;
    answer.cookie = Some(String::from_utf8(cookie).unwrap());
    assert_eq!(holder.send(&answer).unwrap().status, 401);
    assert_eq!(scene.serving.last_refusal().0, Reason::SessionForged);
}

#[test]
fn a_policy_changed_after_the_agreement_releases_nothing() {
    let swtpm = Swtpm::new();
    let ceremony = Ceremony::hold(&rego(Some(root_sha256(&swtpm))));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &swtpm.roots(), false);
    let text = std::fs::read_to_string(policy.join("policy.rego")).unwrap();
    std::fs::write(policy.join("policy.rego"), text + "\n# more generous\n").unwrap();
    let serving = Serving::start(&ceremony, &policy, Default::default());
    let scene = Scene { swtpm, ceremony, manifest, serving };
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    scene.refused_at_release(
        &scene.image(),
        &TpmAttester::new(&mut tpm, log(LOG)),
        Reason::PolicyChanged,
    );
}

#[test]
fn a_policy_that_names_another_root_refuses() {
    let swtpm = Swtpm::new();
    let ceremony = Ceremony::hold(&rego(Some(sha256(b"another root"))));
    let (documents, manifest) = ceremony.build(1, &log(LOG));
    ceremony.store("alice").enrol(&documents).unwrap();
    let policy = ceremony.policy_folder("alice", &swtpm.roots(), false);
    let serving = Serving::start(&ceremony, &policy, Default::default());
    let scene = Scene { swtpm, ceremony, manifest, serving };
    let mut tpm = boot(&scene.swtpm, &log(LOG));
    scene.refused_at_release(&scene.image(), &TpmAttester::new(&mut tpm, log(LOG)), Reason::Policy);
}
