//! Boots of a sealed server CVM in QEMU: the one that must work, and the attacks that must end in
//! their own code and a machine that is powered off with nothing opened.
//!
//! They share one scene (stages from the cache, one ceremony, one bundle) and run one after
//! another: key holders and forwarded ports are the same for all.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cvm_ceremony::split_key::{Half, Purpose, combine};
use cvm_custody::{Party, Unlock};
use cvm_image::boot::disk;
use cvm_lab::{
    offline::{self, Area},
    run,
    scene::{Holders, PARTIES, Scene},
    timeline::Timeline,
    tpm::Tpm,
    vm::{BOOT_LIMIT, Machine, Refusal},
};
use cvm_layout::manifest::{Manifest, Stage};
use cvm_seal::{
    HEADER_BYTES, MacKey,
    guard::{binary, record},
};

mod host_channels;

const PORT: u16 = 18_002;
const READY_LIMIT: Duration = Duration::from_secs(300);

struct Lab {
    scene: Scene,
    tpm: Tpm,
    /// As provisioned; never started itself.
    pristine: Machine,
    /// Its twin after a first boot, powered off.
    sealed: Option<Machine>,
}

/// The one scene; holding it keeps other tests out.
fn lab() -> MutexGuard<'static, Lab> {
    static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        let scene = Scene::new("lab", 17_443, "small.yaml", |line| eprintln!("{line}"));
        // A new ceremony and bundle each time: key holders remember first boots.
        for old in ["parties", "exchange", "builder", "bundles", "machines"] {
            let _ = fs::remove_dir_all(scene.root.join(old));
        }
        let (pristine, tpm) = scene.sealed().expect("the scene");
        Mutex::new(Lab { scene, tpm, pristine, sealed: None })
    });
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lab {
    fn twin(&self, of: &Machine, name: &str) -> Machine {
        of.twin(&self.scene.root.join("machines").join(name)).expect("a twin machine")
    }

    fn holders(&self) -> Holders {
        self.scene.holders().expect("both key holders")
    }

    /// A machine after its first boot, powered off in order.
    fn sealed(&mut self) -> Machine {
        if self.sealed.is_none() {
            let machine = self.twin(&self.pristine, "sealed");
            let _holders = self.holders();
            let console = boot_and_ask(self, &machine).expect("the first boot");
            assert!(console.contains("jobs: made"), "a first boot makes p5:\n{console}");
            self.sealed = Some(machine);
        }
        self.sealed.clone().expect("just set")
    }

    /// Boots an attacked machine with both key holders up.
    fn refused(&self, machine: &Machine) -> Refusal {
        let _holders = self.holders();
        machine.refused(&self.tpm).expect("a refused boot")
    }
}

/// Boots, asks NVFLARE for its status through the forwarded port, powers off; gives the console.
fn boot_and_ask(lab: &Lab, machine: &Machine) -> Result<String> {
    let mut vm = machine.start(&lab.tpm, &format!("tcp:127.0.0.1:{PORT}-:8002"))?;
    vm.handoff()?;
    let status = lab.scene.admin_status(PORT, READY_LIMIT)?;
    let ready = Instant::now();
    let timeline = Timeline::new(vm.console.started, vm.console.output(), Some(ready));
    eprintln!("NVFLARE: {status}\n{timeline}");
    ensure!(status["server_status"].is_string(), "no server status in {status}");
    let console = vm.console.text();
    let after = console
        .lines()
        .skip_while(|l| !l.contains("] handoff:"))
        .skip(1)
        .find(|l| !l.trim().is_empty());
    ensure!(after.is_none(), "the console must be silent after handoff, but says {after:?}");
    vm.power_button()?;
    Ok(console)
}

fn expect(refusal: &Refusal, code: &str) {
    assert_eq!(refusal.code.as_deref(), Some(code), "{}", refusal.console);
    for opened in ["p3: opened", "jobs: opened", "jobs: made", "state: opened", "state: made"] {
        assert!(!refusal.console.contains(opened), "{opened} before {code}:\n{}", refusal.console);
    }
}

/// Flips one bit of partition `number` at `offset`.
fn flip(machine: &Machine, scratch: &Path, number: u32, offset: u64) -> Result<()> {
    disk::extract(&machine.disk(), number, scratch)?;
    let bytes = fs::read(scratch)?;
    let byte = bytes.get(offset as usize).context("the offset lies in the partition")?;
    disk::patch(&machine.disk(), number, offset, &[byte ^ 1])?;
    Ok(())
}

/// Where `needle` starts in partition `number`.
fn find(machine: &Machine, scratch: &Path, number: u32, needle: &[u8]) -> u64 {
    disk::extract(&machine.disk(), number, scratch).expect("the partition");
    let bytes = fs::read(scratch).expect("the partition's copy");
    bytes.windows(needle.len()).position(|w| w == needle).expect("the bytes are there") as u64
}

/// Writes `content` to `path` on p1 or p2, as anybody with the disk can.
fn put_on(machine: &Machine, scratch: &Path, number: u32, path: &str, content: &str) {
    disk::extract(&machine.disk(), number, scratch).expect("the partition");
    let file = scratch.with_extension("file");
    fs::write(&file, content).expect("the file");
    for (end, _) in path.match_indices('/') {
        // It may exist already.
        let _ = run(Command::new("mmd").arg("-i").arg(scratch).arg(format!("::{}", &path[..end])));
    }
    run(Command::new("mcopy").arg("-i").arg(scratch).arg(&file).arg(format!("::{path}")))
        .expect("mcopy");
    disk::patch(&machine.disk(), number, 0, &fs::read(scratch).expect("its copy"))
        .expect("writing it");
}

/// p5's header area of a machine, changed and written back.
fn replace_p5_header(machine: &Machine, scratch: &Path, change: impl FnOnce(&mut [u8])) {
    disk::extract(&machine.disk(), 5, scratch).expect("p5");
    let mut area = fs::read(scratch).expect("p5's copy");
    area.truncate(HEADER_BYTES);
    change(&mut area);
    disk::patch(&machine.disk(), 5, 0, &area).expect("writing p5's header");
}

#[test]
fn a_sealed_server_boots_and_p5_keeps_its_content_across_a_reboot() {
    let mut lab = lab();
    let sealed = lab.sealed();
    let machine = lab.twin(&sealed, "reboot");
    // The key holders moved: the site says so on p1, and their pinned identity stays.
    let moved = |index: u16| 17_543 + index;
    let endpoints: String = (0..)
        .zip(PARTIES)
        .map(|(i, (name, _))| format!("  {name}: https://10.0.2.2:{}\n", moved(i)))
        .collect();
    let scratch = lab.scene.root.join("machines/scratch");
    put_on(
        &machine,
        &scratch,
        1,
        "flare-cvm/endpoints.yaml",
        &format!("version: 1\nkeyholders:\n{endpoints}"),
    );
    let _holders: Vec<_> = (0..)
        .zip(PARTIES)
        .map(|(i, _)| lab.scene.holder_at(i.into(), moved(i), None).expect("a key holder"))
        .collect();
    let console = boot_and_ask(&lab, &machine).expect("the second boot");
    assert!(console.contains("jobs: opened") && !console.contains("jobs: made"), "{console}");
    assert!(console.contains("p5 by model-owner and data-owner"), "{console}");
}

#[test]
fn attack_key_holder_of_the_data_owner_is_down() {
    let lab = lab();
    let machine = lab.twin(&lab.pristine, "holder-down");
    let _model_owner = lab.scene.holder(0, None).expect("the model owner's key holder");
    let refusal = machine.refused(&lab.tpm).expect("a refused boot");
    expect(&refusal, "FC-401");
    assert!(refusal.console.contains("data-owner"), "{}", refusal.console);
}

#[test]
fn attack_measurements_that_the_model_owners_policy_refuses() {
    let lab = lab();
    let machine = lab.twin(&lab.pristine, "policy-refuses");
    // The model owner trusts another manufacturer of TPMs; the data owner trusts ours.
    let folder = lab.scene.root.join("machines/other-roots");
    let other = Tpm::manufacture(&folder.join("tpm")).expect("another TPM");
    fs::create_dir_all(folder.join("ek-roots")).expect("a policy folder");
    fs::copy(lab.scene.party(0).join("policy.rego"), folder.join("policy.rego"))
        .expect("the agreed policy");
    fs::copy(&other.roots[0], folder.join("ek-roots/root.pem")).expect("the other root");
    let mut model_owner = lab.scene.holder(0, Some(&folder)).expect("the model owner's key holder");
    let _data_owner = lab.scene.holder(1, None).expect("the data owner's key holder");
    let refusal = machine.refused(&lab.tpm).expect("a refused boot");
    expect(&refusal, "FC-403");
    assert!(refusal.console.contains("model-owner"), "{}", refusal.console);
    let log = model_owner.text();
    assert!(log.contains("reason=unknown-ek"), "the log names the reason:\n{log}");
}

#[test]
fn attack_one_byte_in_p4() {
    let lab = lab();
    let machine = lab.twin(&lab.pristine, "p4-byte");
    flip(&machine, &lab.scene.root.join("machines/scratch"), 4, 40_001).expect("the flip");
    expect(&lab.refused(&machine), "FC-241");
}

#[test]
fn attack_one_byte_in_the_uki() {
    let lab = lab();
    let machine = lab.twin(&lab.pristine, "uki-byte");
    let scratch = lab.scene.root.join("machines/scratch");
    // In the middle of the kernel image: megabytes after its DOS stub.
    let uki = find(&machine, &scratch, 2, b"MZ");
    flip(&machine, &scratch, 2, uki + 5_000_001).expect("the flip");
    let mut vm = machine.start(&lab.tpm, "").expect("the machine");
    vm.console
        .wait_for(&["Security Violation", "Access Denied", "No bootable option"], BOOT_LIMIT)
        .expect("the firmware refuses it");
    assert!(!vm.console.text().contains("cvm-init"), "{}", vm.console.text());
}

#[test]
fn attack_manifest_with_a_wrong_signature() {
    let lab = lab();
    let machine = lab.twin(&lab.pristine, "manifest-signature");
    let scratch = lab.scene.root.join("machines/scratch");
    let signature = fs::read(lab.pristine.folder.join("manifest.sig")).expect("manifest.sig");
    let at = find(&machine, &scratch, 1, &signature);
    flip(&machine, &scratch, 1, at + 7).expect("the flip");
    expect(&lab.refused(&machine), "FC-206");
}

#[test]
fn attack_credential_slipped_onto_p2() {
    let lab = lab();
    let machine = lab.twin(&lab.pristine, "credential");
    // systemd-stub appends what lies beside a UKI to its initramfs, signed or not.
    put_on(
        &machine,
        &lab.scene.root.join("machines/scratch"),
        2,
        "loader/credentials/evil.cred",
        "evil",
    );
    expect(&lab.refused(&machine), "FC-231");
}

#[test]
fn attack_one_party_alone_opens_p5() {
    one_party_alone_opens(Purpose::Jobs, &["keyholder", "nvflare"]);
}

#[test]
fn attack_one_party_alone_opens_state() {
    one_party_alone_opens(Purpose::State, &["agent", "logs", "workspace"]);
}

/// An area of a disk after its first boot, which both halves open and read, and neither alone.
/// `holds` names the folders in it.
fn one_party_alone_opens(purpose: Purpose, holds: &[&str]) {
    let mut lab = lab();
    let sealed = lab.sealed();
    let manifest = fs::read(lab.pristine.folder.join("manifest.json")).expect("the manifest");
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("the manifest");
    let folder = lab.scene.root.join("machines/offline");
    let area = Area::of(&sealed, &manifest, purpose, &folder).expect("the area");
    let key = |halves: &[&Half]| {
        combine(&manifest.split_key.transcript, halves, purpose, &manifest.image_id)
    };

    let folders = [lab.scene.party(0), lab.scene.party(1)];
    let parties = folders
        .map(|folder| Party::load(&folder, &Unlock::beside(&folder)).expect("a party's secrets"));
    let halves = parties.each_ref().map(|party| {
        party
            .half(&manifest.split_key, manifest.role, &manifest.image_id, Stage::Boot)
            .expect("a half")
    });
    for (party, own) in parties.iter().zip(&halves) {
        let keys = offline::keys_of_one(party, own, &manifest, purpose).expect("keys");
        for (number, key) in keys.iter().enumerate() {
            assert!(
                !area.opens(key).expect("cryptsetup"),
                "{} alone opened it with try {number}",
                party.card().name
            );
        }
    }
    let swapped = key(&[&halves[1], &halves[0]]).expect("a key");
    assert!(
        !area.opens(swapped.as_bytes()).expect("cryptsetup"),
        "the order of halves is part of the key"
    );
    let both = key(&[&halves[0], &halves[1]]).expect("the key of both");
    assert!(area.opens(both.as_bytes()).expect("cryptsetup"), "both halves together open it");
    let files = area.files(both.as_bytes()).expect("its files");
    for name in holds {
        assert!(files.contains_key(&format!("{name}/")), "{name} is missing: {:?}", files.keys());
    }
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn debians_own_tools_accept_what_the_build_made() {
    let lab = lab();
    let scratch = lab.scene.root.join("machines/scratch");
    let read = |name: &str| fs::read(lab.pristine.folder.join(name)).expect("a bundle's file");
    let manifest: Manifest = serde_json::from_slice(&read("manifest.json")).expect("the manifest");
    disk::extract(&lab.pristine.disk(), 1, &scratch).expect("p1");
    let statement = run(Command::new("mtype").arg("-i").arg(&scratch).arg("::flare-cvm/boot.json"))
        .expect("mtype");
    let statement: cvm_layout::manifest::BootStatement =
        serde_json::from_str(&statement).expect("the statement");

    for (number, verity) in [(2, &statement.boot), (4, &manifest.config)] {
        disk::extract(&lab.pristine.disk(), number, &scratch).expect("a partition");
        let offset = verity.data_bytes.to_string();
        run(Command::new("veritysetup")
            .args(["verify", "--hash-offset", &offset])
            .args([&scratch, &scratch])
            .arg(verity.root_hash.to_string()))
        .expect("veritysetup verify");
    }
    disk::extract(&lab.pristine.disk(), 3, &scratch).expect("p3");
    let dump =
        run(Command::new("cryptsetup").arg("luksDump").arg(&scratch)).expect("cryptsetup luksDump");
    for expected in ["cipher: aes-xts-plain64", "PBKDF:      pbkdf2", "AF stripes: 4000"] {
        assert!(dump.contains(expected), "{expected} in\n{dump}");
    }
}

#[test]
fn attack_p5_header_with_a_null_cipher() {
    let mut lab = lab();
    let sealed = lab.sealed();
    let machine = lab.twin(&sealed, "p5-null-cipher");
    replace_p5_header(&machine, &lab.scene.root.join("machines/scratch"), |area| {
        let (good, null) = (b"aes-xts-plain64", b"cipher_null-ecb");
        let places: Vec<_> =
            (0..area.len() - good.len()).filter(|at| area[*at..].starts_with(good)).collect();
        assert!(!places.is_empty(), "the header names its cipher");
        places.into_iter().for_each(|at| area[at..at + null.len()].copy_from_slice(null));
        binary::mend(area); // LUKS2's own checksums are right
    });
    expect(&lab.refused(&machine), "FC-601");
}

#[test]
fn attack_p5_header_of_another_key() {
    let mut lab = lab();
    let sealed = lab.sealed();
    let machine = lab.twin(&sealed, "p5-other-key");
    replace_p5_header(&machine, &lab.scene.root.join("machines/scratch"), |area| {
        // Another volume key in the keyslot, and a record made under the attacker's own key.
        area[32 * 1024..64 * 1024].iter_mut().for_each(|byte| *byte ^= 0x5a);
        binary::mend(area);
        record::write(area, &MacKey::new(&[7; 32])).expect("a record");
    });
    expect(&lab.refused(&machine), "FC-602");
}

#[test]
fn attack_second_boot_with_p5_wiped() {
    let mut lab = lab();
    let sealed = lab.sealed();
    let machine = lab.twin(&sealed, "p5-wiped");
    disk::patch(&machine.disk(), 5, 0, &vec![0; 2 * HEADER_BYTES]).expect("the wipe");
    expect(&lab.refused(&machine), "FC-603");
}
