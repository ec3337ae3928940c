use std::{
    error::Error,
    sync::{Arc, Barrier, Mutex},
};

use cvm_release::{binding::Binding, messages::Tee};

use super::*;
use crate::fixtures::manifest;

struct NoTpm;

impl Attester for NoTpm {
    fn tee(&self) -> Tee {
        Tee::Tpm
    }

    fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        Ok(String::new())
    }

    fn evidence(
        &self,
        _: &str,
        _: &Binding,
    ) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        Ok(serde_json::Value::Null)
    }
}

#[derive(Clone)]
struct Fake {
    half: [u8; 32],
    memory: Option<SealState>,
    registered: Arc<Mutex<Vec<Bytes32>>>,
    failure: Option<fn() -> Cause>,
    meeting: Option<Arc<Barrier>>,
    asked: Arc<Mutex<Vec<Stage>>>,
}

fn fake(half: u8) -> Fake {
    Fake {
        half: [half; 32],
        memory: Some(SealState::default()),
        registered: Arc::default(),
        failure: None,
        meeting: None,
        asked: Arc::default(),
    }
}

impl KeyHolder for Fake {
    fn release(
        &self,
        _: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Box<dyn Attested>, ReleaseError> {
        self.asked.lock().unwrap().push(stage);
        assert_eq!(attester.tee(), Tee::Tpm);
        self.meeting.iter().for_each(|meeting| _ = meeting.wait());
        match self.failure {
            Some(failure) => {
                Err(ReleaseError { holder: format!("holder {}", self.half[0]), failure: failure() })
            }
            None => Ok(Box::new(self.clone())),
        }
    }
}

impl Attested for Fake {
    fn half(&self) -> &[u8; 32] {
        &self.half
    }

    fn seal_state(&self) -> Result<Option<SealState>, ReleaseError> {
        Ok(self.memory.clone())
    }

    fn register_seal(
        &self,
        header_sha256: Bytes32,
        _: Option<&[u8; 32]>,
    ) -> Result<(), ReleaseError> {
        self.registered.lock().unwrap().push(header_sha256);
        Ok(())
    }

    fn attestation_key(&self) -> Result<Option<Value>, ReleaseError> {
        Ok(self.memory.as_ref().map(|_| self.half[0].into()))
    }
}

fn holders(manifest: &Manifest, fakes: [Fake; 2]) -> BTreeMap<&Name, Box<dyn KeyHolder>> {
    let names = manifest.split_key.parties.iter().map(|party| &party.name);
    names.zip(fakes.map(|fake| Box::new(fake) as Box<dyn KeyHolder>)).collect()
}

/// Decided without a disk, whose headers would prove it.
fn settled<'a>(
    mut exchange: Exchange<'a, Joined>,
    machine: Option<MachineSecret>,
) -> Exchange<'a, Settled> {
    let remembered = exchange.take_remembered();
    exchange.settle(machine, remembered)
}

const DIGEST: Bytes32 = Bytes32 { 0: [0xd1; 32] };

#[test]
fn all_key_holders_are_asked_at_once_and_their_halves_joined() {
    let manifest = manifest();
    let meeting = Arc::new(Barrier::new(2));
    let fakes = [1, 2].map(|half| Fake { meeting: Some(meeting.clone()), ..fake(half) });
    let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, fakes), &NoTpm)
        .ok()
        .unwrap();
    let exchange = exchange.join().ok().unwrap();
    let system = exchange.system_keys().ok().unwrap();
    let exchange = settled(exchange, None);
    let data = exchange.data_keys().ok().unwrap();
    let from = [&*system.from, &*data.state.from, &*data.jobs.from];
    assert_eq!(from, ["model-owner", "model-owner and data-owner", "model-owner and data-owner"]);
    exchange.end().unwrap();
}

#[test]
fn one_failing_key_holder_fails_the_boot_with_its_own_code() {
    let manifest = manifest();
    let failures: [(fn() -> Cause, Code); 7] = [
        (|| Cause::Unreachable("refused".into()), Code::Unreachable),
        (|| Cause::Timeout("connecting".into()), Code::Unreachable),
        (|| Cause::WrongCertificate { expected: DIGEST, found: DIGEST }, Code::Certificate),
        (
            || Cause::Refused { status: 401, error_type: "x".into(), detail: "policy".into() },
            Code::Refused,
        ),
        (|| Cause::Protocol("?".into()), Code::Protocol),
        (|| Cause::Evidence("no TPM".into()), Code::Evidence),
        (|| Cause::NoChallenge, Code::NoChallenge),
    ];
    for (failure, code) in failures {
        let fakes = [fake(1), Fake { failure: Some(failure), ..fake(2) }];
        let failed = Exchange::new(&manifest, DIGEST, Stage::Boot)
            .release(&holders(&manifest, fakes), &NoTpm)
            .err()
            .unwrap();
        assert_eq!(failed.code, code);
        assert!(failed.detail.contains("holder 2"), "{failed}");
    }
    let fakes = [1, 2]
        .map(|half| Fake { failure: Some(|| Cause::Unreachable("down".into())), ..fake(half) });
    let failed = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, fakes), &NoTpm)
        .err()
        .unwrap();
    assert!(failed.detail.contains("holder 1") && failed.detail.contains("1 more"), "{failed}");
}

#[test]
fn a_skipped_key_holder_gives_no_key() {
    let manifest = manifest();
    let fakes = [fake(1), fake(2)];
    let mut exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, fakes), &NoTpm)
        .ok()
        .unwrap();
    // As a glitch would: the last party's step did not happen, although its session is there.
    exchange.order = Order::begin(&manifest, DIGEST, Stage::Boot);
    exchange.order.then("half", &manifest.split_key.parties[0].name);
    assert_eq!(exchange.join().err().unwrap().code, Code::Order);
}

#[test]
fn another_transcript_is_another_order() {
    let manifest = manifest();
    let mut other = manifest.clone();
    other.split_key.transcript = DIGEST;
    let order = Order::released(&manifest, DIGEST, Stage::Boot);
    assert!(order.check(Order::released(&other, DIGEST, Stage::Boot)).is_err());
    assert!(order.check(Order::released(&manifest, Bytes32 { 0: [0; 32] }, Stage::Boot)).is_err());
}

#[test]
fn only_key_holders_without_a_registration_are_told() {
    let manifest = manifest();
    let sealed = Some(SealState { header_sha256: Some(DIGEST), ..SealState::default() });
    let fakes = [fake(1), Fake { memory: sealed, ..fake(2) }];
    let registered = fakes.each_ref().map(|fake| fake.registered.clone());
    let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, fakes), &NoTpm)
        .ok()
        .unwrap();
    let exchange = exchange.join().ok().unwrap();
    let exchange = settled(exchange, None);
    assert_eq!(exchange.seal_memories(), [SealMemory::Fresh, SealMemory::Sealed(Some(DIGEST))]);
    exchange.register(DIGEST).unwrap();
    assert_eq!(registered.map(|list| list.lock().unwrap().len()), [1, 0]);
}

/// A key holder that was told of a third factor, and gives this share of it.
fn moving(half: u8, share: [u8; 32]) -> Fake {
    let share = Some(Zeroizing::new(share));
    let memory =
        SealState { header_sha256: Some(DIGEST), bound: true, share, ..SealState::default() };
    Fake { memory: Some(memory), ..fake(half) }
}

#[test]
fn a_share_that_is_not_of_the_third_factor_is_not_told_back_and_ends_no_boot() {
    let manifest = manifest();
    let machine = MachineSecret::from_bytes(&[3; 32]);
    let names: Vec<_> = manifest.split_key.parties.iter().map(|party| &party.name).collect();
    let shares =
        machine.shares(&manifest.split_key.transcript, &names, &manifest.image_id).unwrap();
    // The second party's was damaged: it would refuse the right one, and every boot with it.
    let fakes = [moving(1, *shares[0].as_bytes()), moving(2, [0x66; 32])];
    let registered = fakes.each_ref().map(|fake| fake.registered.clone());
    let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, fakes), &NoTpm)
        .ok()
        .unwrap();
    let exchange = exchange.join().ok().unwrap();
    settled(exchange, Some(machine)).register(DIGEST).unwrap();
    assert_eq!(registered.map(|list| list.lock().unwrap().len()), [1, 0]);
}

#[test]
fn attack_a_share_without_a_header_that_needs_it() {
    let manifest = manifest();
    let mut odd = moving(2, [1; 32]);
    odd.memory.iter_mut().for_each(|memory| memory.header_sha256 = None);
    let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, [fake(1), odd]), &NoTpm)
        .ok()
        .unwrap();
    assert_eq!(exchange.join().err().unwrap().code, Code::SealMemory);
}

#[test]
fn statements_about_the_attestation_key_are_collected_where_there_are_any() {
    let manifest = manifest();
    let fakes = [fake(1), Fake { memory: None, ..fake(2) }];
    let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, fakes), &NoTpm)
        .ok()
        .unwrap();
    let exchange = settled(exchange.join().ok().unwrap(), None);
    assert_eq!(exchange.attestation_keys().ok().unwrap(), [Value::from(1)]);
}

/// An image that requires GPUs.
fn with_gpus() -> Manifest {
    let gpu = Some(cvm_layout::manifest::GpuMechanism::NvidiaCc);
    Manifest { gpu, ..manifest() }
}

#[test]
fn the_boot_of_an_image_with_gpus_asks_who_opens_p3_and_gets_no_key_of_p5_and_state() {
    let manifest = with_gpus();
    let (model, data) = (fake(1), fake(2));
    let asked = [model.asked.clone(), data.asked.clone()];
    let holders = holders(&manifest, [model, data]);
    let exchange =
        Exchange::new(&manifest, DIGEST, Stage::Boot).release(&holders, &NoTpm).ok().unwrap();
    let exchange = exchange.join().ok().unwrap();
    assert_eq!(exchange.system_keys().ok().unwrap().from, "model-owner");
    assert_eq!(exchange.candidate_header_keys(None).err().unwrap().code, Code::Order);
    // Each of its keys by itself, too: the joined halves of the boot would be a wrong key, not an
    // error.
    for purpose in [Purpose::State, Purpose::HeaderMacState, Purpose::Jobs, Purpose::HeaderMacJobs]
    {
        assert_eq!(exchange.key(purpose, None).err().unwrap().code, Code::Order, "{purpose}");
    }
    assert_eq!(asked.map(|list| list.lock().unwrap().clone()), [vec![Stage::Boot], vec![]]);
    let exchange = settled(exchange, None);
    assert_eq!(exchange.data_keys().err().unwrap().code, Code::Order);
    assert_eq!(exchange.data_from(), "nobody yet: they wait for GPUs");
    exchange.end().unwrap();
}

#[test]
fn the_running_system_asks_everybody_and_gets_the_keys_of_p5_and_state_alone() {
    let manifest = with_gpus();
    let holders = holders(&manifest, [fake(1), fake(2)]);
    let exchange =
        Exchange::new(&manifest, DIGEST, Stage::Running).release(&holders, &NoTpm).ok().unwrap();
    let exchange = exchange.join().ok().unwrap();
    assert_eq!(exchange.system_keys().err().unwrap().code, Code::Order);
    let exchange = exchange.settle_running().ok().unwrap();
    let data = exchange.data_keys().ok().unwrap();
    assert_eq!([data.jobs.from, data.state.from], ["model-owner and data-owner"; 2]);
    assert_eq!(exchange.system_secret().err().unwrap().code, Code::Order);
    exchange.end().unwrap();
}

#[test]
fn one_stages_order_is_not_the_others() {
    let manifest = with_gpus();
    let order = Order::released(&manifest, DIGEST, Stage::Running);
    assert!(order.check(Order::released(&manifest, DIGEST, Stage::Boot)).is_err());
}

#[test]
fn attack_a_boot_whose_machines_part_no_header_has_proved() {
    let manifest = manifest();
    let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
        .release(&holders(&manifest, [fake(1), fake(2)]), &NoTpm)
        .ok()
        .unwrap();
    let exchange = exchange.join().ok().unwrap();
    assert_eq!(exchange.settle_running().err().unwrap().code, Code::Order);
}

#[test]
fn the_keys_of_p5_and_state_are_those_of_the_candidate_that_was_settled() {
    let manifest = manifest();
    let [with, without] = [Some(MachineSecret::from_bytes(&[3; 32])), None].map(|machine| {
        let exchange = Exchange::new(&manifest, DIGEST, Stage::Boot)
            .release(&holders(&manifest, [fake(1), fake(2)]), &NoTpm)
            .ok()
            .unwrap();
        let exchange = exchange.join().ok().unwrap();
        let mut area = vec![0; cvm_seal::HEADER_BYTES];
        let judged = exchange.candidate_header_keys(machine.as_ref()).ok().unwrap();
        cvm_seal::guard::record::write(&mut area, &judged.jobs).unwrap();
        let keys = settled(exchange, machine).data_keys().ok().unwrap();
        let mut same = vec![0; cvm_seal::HEADER_BYTES];
        cvm_seal::guard::record::write(&mut same, &keys.jobs.mac).unwrap();
        assert!(area == same, "another MAC key than the header was judged with");
        area
    });
    assert!(with != without, "the machine's secret changes the keys");
}
