//! Every way in which a boot can fail: one table, from which `docs/boot-codes.md` is rendered.
//!
//! A code never changes its meaning. One that is no longer used is not given to anything else.

use std::fmt;

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeRow {
    /// What failed, in a few words.
    pub title: &'static str,
    /// What probably happened.
    pub cause: &'static str,
    /// What to do next, and who does it.
    pub cure: &'static str,
}

macro_rules! codes {
    ($($variant:ident = $number:literal, $title:literal, $cause:literal, $cure:literal;)*) => {
        /// A stable code `FC-nnn`: why a boot, or what it left to the running system, ended before
        /// NVFLARE started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code {
            $(#[doc = $title] $variant = $number,)*
        }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code's row.
            pub fn row(self) -> CodeRow {
                match self {
                    $(Self::$variant => CodeRow { title: $title, cause: $cause, cure: $cure },)*
                }
            }
        }
    };
}

codes! {
    Interfaces = 101, "kernel interfaces are missing",
        "proc, sysfs, devtmpfs or tmpfs could not be mounted: the kernel is not one of the \
         supported profiles.",
        "Builder: rebuild with a supported profile.";
    Module = 102, "a kernel module was refused",
        "The kernel rejects a module of the initramfs: its signature or version belongs to another \
         kernel.",
        "Builder: rebuild the image; kernel and modules must come from one package.";
    Disk = 103, "the sealed disk was not found",
        "No disk, or more than one, carries the six partitions ESP, boot, root, config, jobs and \
         data.",
        "Site: attach exactly this bundle's disk.qcow2, as launch_vm.sh does.";
    Tpm = 104, "no TPM",
        "/dev/tpmrm0 did not appear, and there is no TEE: the VM has no TPM 2.0, or swtpm is not \
         running.",
        "Site: start the VM with launch_vm.sh, which starts swtpm; check that swtpm is installed.";
    HostChannel = 105, "the host could speak to the running system",
        "The kernel shows programs what the host says (SMBIOS, fw_cfg, EFI variables, VSOCK, \
         shared folders, USB), or the command line lacks a switch against it.",
        "Site: start the VM with launch_vm.sh. Builder: rebuild with a supported profile; a later \
         kernel has a channel built in.";
    Setting = 106, "a setting of the kernel was refused",
        "The kernel does not take a value of /etc/sysctl.d/60-sealed.conf, which holds from the \
         first program on.",
        "Builder: rebuild with a supported profile.";
    SelfTest = 111, "a known-answer test failed",
        "X25519, HKDF-SHA256 or AES-256 computed a wrong answer: faulty hardware, or tampering \
         with the CPU's state.",
        "Site: move the VM to another machine. If it happens again, report it as a security \
         incident.";
    CodeSegment = 112, "cvm-init differs from the manifest",
        "The code in memory is not the code that the builder measured: the initramfs was changed, \
         or memory was.",
        "Site: unpack the bundle again. If it happens again, report it as a security incident.";
    Esp = 201, "p1 cannot be read",
        "p1 is not a FAT file system, is damaged, or is larger than allowed.",
        "Site: unpack the bundle's disk.qcow2 again.";
    CommandLine = 202, "the kernel command line names no manifest",
        "`flare_cvm.manifest=` is absent, doubled or not a digest: this kernel was not started \
         from the bundle's UKI.",
        "Site: start the VM with launch_vm.sh and its own firmware variables.";
    BuilderKey = 203, "the builder's public key is unusable",
        "/etc/flare-cvm/builder.pub in the initramfs is absent or is not an Ed25519 key.",
        "Builder: rebuild the image.";
    ManifestMissing = 204, "the manifest is missing",
        "p1 has no /flare-cvm/manifest.json or manifest.sig.",
        "Site: unpack the bundle's disk.qcow2 again.";
    ManifestDigest = 205, "the manifest is not the one that the command line names",
        "manifest.json on p1 was changed, or belongs to another image.",
        "Site: unpack the bundle's disk.qcow2 again; do not mix files of two bundles.";
    ManifestSignature = 206, "the manifest's signature is wrong",
        "manifest.sig is not the builder's signature over manifest.json.",
        "Site: unpack the bundle's disk.qcow2 again. Builder: check that the image was signed with \
         the project's key.";
    ManifestSchema = 207, "the manifest cannot be understood",
        "A field is unknown, missing or out of range: manifest and cvm-init are of different \
         versions (1 and 2: `state` opened without all parties).",
        "Builder: seal the site anew, with stages and flare-cvm of one version.";
    BootMissing = 211, "the boot statement is missing",
        "p1 has no /flare-cvm/boot.json or boot.sig.",
        "Site: unpack the bundle's disk.qcow2 again.";
    BootSignature = 212, "the boot statement's signature is wrong",
        "boot.sig is not the builder's signature over boot.json.",
        "Site: unpack the bundle's disk.qcow2 again.";
    BootStatement = 213, "the boot statement is not of this image",
        "boot.json cannot be understood, or names another image or manifest.",
        "Site: unpack the bundle's disk.qcow2 again; do not mix files of two bundles.";
    Endpoints = 214, "endpoints.yaml cannot be understood",
        "The site's /flare-cvm/endpoints.yaml on p1 has a mistake, or names a party that holds \
         no half of this image's keys.",
        "Site: correct the file (README shows its form) or remove it.";
    Collateral = 215, "collateral.json cannot be understood",
        "The site's /flare-cvm/collateral.json on p1 is not what `flare-cvm collateral pack` \
         writes.",
        "Site: write the file again, or remove it.";
    Partitions = 221, "the partition table differs from the manifest",
        "A partition was moved, resized, renamed or added.",
        "Site: unpack the bundle's disk.qcow2 again; never repartition it.";
    BootVerity = 231, "p2 differs from its signed root hash",
        "A byte of p2 (boot loader entries, UKI) was changed after the image was built.",
        "Site: unpack the bundle's disk.qcow2 again.";
    ConfigVerity = 241, "p4 differs from its signed root hash",
        "A byte of p4 (startup kit, site_conf) or of its hash tree was changed.",
        "Site: unpack the bundle's disk.qcow2 again. To change a setting, ask the builder for a \
         new image.";
    ConfigMount = 242, "p4 cannot be mounted",
        "p4 passed verification but holds no erofs that this kernel reads.",
        "Builder: rebuild the image.";
    SiteConf = 243, "p4's settings cannot be understood",
        "site_conf.yaml or split_key.json on p4 has a mistake, or contradicts the manifest.",
        "Builder: correct the site's configuration and rebuild the image.";
    NoNetworkDevice = 301, "no network device",
        "The VM has no virtio network card.",
        "Site: start the VM with launch_vm.sh.";
    Dhcp = 302, "no DHCP lease",
        "No DHCP server answered in time with a usable address.",
        "Site: check the VM's network, or ask the builder for a static address in site_conf.yaml.";
    NetworkSetup = 303, "the network cannot be set up",
        "The kernel refused an address or a route: the DHCP answer or site_conf.yaml contradicts \
         itself.",
        "Site: check address, prefix and gateway.";
    Unreachable = 401, "a key holder cannot be reached",
        "Its name does not resolve, nothing listens, a firewall drops the connection, or it \
         answered too late.",
        "Site: check that the party's key holder runs and that the VM reaches it; if it moved, \
         name its new address in endpoints.yaml on p1.";
    Certificate = 402, "a key holder shows the wrong certificate",
        "Another server answers at this address, or the party renewed its certificate after the \
         image was built.",
        "Site: check the address in endpoints.yaml. Party: serve the certificate that the ceremony \
         names, or hold a new one.";
    Refused = 403, "a key holder refuses",
        "Its policy does not accept this VM's evidence, or it does not know this image; the reason \
         is in its audit log.",
        "Party: read the key holder's log line of this request; enrol the image or correct the \
         policy.";
    Protocol = 404, "a key holder's answer breaks the protocol",
        "Another kind of server answers, a proxy rewrites the answer, or the versions do not fit.",
        "Site: check the address and the proxy. Party: check the key holder's version.";
    Evidence = 405, "the VM cannot make its evidence",
        "The TPM refused a quote, an attestation key or the credential, or the measured-boot log \
         is missing.",
        "Site: give the VM its own fresh TPM state, and the firmware of the bundle.";
    SealMemory = 406, "a key holder's memory of this image cannot be used",
        "The seal record's request failed after the halves were released.",
        "Site: start the VM again. Party: check the key holder's log and its database.";
    Gpu = 407, "the VM's GPUs do not attest",
        "No GPU is attached, the driver did not start, or a GPU is not in confidential-computing \
         mode.",
        "Site: switch the GPU's CC mode on and attach it to the VM; this image opens job store and \
         workspace only with it.";
    NoChallenge = 408, "a key holder cannot judge a TPM's evidence",
        "Its challenge is empty: it is a stock Trustee, which does not ask a TPM's attestation key \
         for its proof.",
        "Party: run flare-cvm's key holder for this image, or let the CVM attest with SEV-SNP or \
         TDX.";
    Derivation = 411, "the key cannot be derived",
        "A half is low-order or zero, two derivations differ, or halves, transcript and image do \
         not belong together.",
        "Parties: check that the key holders serve the base keys of this ceremony's epoch.";
    Order = 412, "the exchange's order was violated",
        "A step of the exchange was skipped or repeated: fault injection, or memory corruption.",
        "Site: move the VM to another machine. If it happens again, report it as a security \
         incident.";
    RootHeader = 501, "p3's header is not one that this image may have",
        "p3's LUKS2 header names another cipher, key size, segment or keyslot than the builder \
         made: somebody replaced it.",
        "Site: unpack the bundle's disk.qcow2 again, and find out who changed the disk.";
    RootHeaderMac = 502, "p3's header is not authentic",
        "The MAC of p3's header does not verify under the released key: another image's header, or \
         the wrong halves.",
        "Site: unpack the bundle's disk.qcow2 again. Parties: check the ceremony's epoch.";
    RootOpen = 503, "p3 does not open",
        "The derived key opens no keyslot, or device-mapper refused the volume.",
        "Parties: check that the key holders serve this image's halves. Site: see the detail.";
    SystemVerity = 511, "the system volume differs from its root hash",
        "A byte of p3's system volume was changed or the volume cannot be mounted.",
        "Site: unpack the bundle's disk.qcow2 again, and find out who changed the disk.";
    SiteVerity = 512, "the site volume differs from its root hash",
        "A byte of p3's site volume was changed or the volume cannot be mounted.",
        "Site: unpack the bundle's disk.qcow2 again, and find out who changed the disk.";
    JobsHeader = 601, "p5's header is not one that this image makes",
        "p5's LUKS2 header names another cipher (a null cipher, say), key size, integrity or \
         keyslot: somebody replaced it.",
        "Site: restore p5 from a copy of this disk, and find out who changed it.";
    JobsHeaderMac = 602, "p5's header is not authentic",
        "p5's header is well formed but its MAC does not verify: it was made with another key, or \
         a share of the third factor is wrong.",
        "Site: restore p5 from a copy of this disk, and find out who changed it. Parties: if it \
         moves, restore the store whose share is wrong.";
    JobsWiped = 603, "p5 was wiped",
        "The key holders remember that this image was sealed, and p5 is empty.",
        "Site: restore p5 from a copy of this disk. To begin again without the jobs, ask the \
         builder for a new image.";
    JobsOther = 604, "p5 is not the registered one",
        "p5 carries an authentic header, but not the one that the key holders remember: an older \
         or a parallel copy of the disk.",
        "Site: use the disk that was sealed first; never run two copies of one bundle.";
    HoldersDisagree = 605, "the key holders remember different disks",
        "Two copies of this bundle were first booted at once, each registered with one key holder.",
        "Parties: compare the registered digests (`flare-cvm keyholder seal show`) and keep one.";
    JobsOpen = 606, "p5 does not open",
        "The derived key opens no keyslot, device-mapper refused it, or its file system cannot be \
         mounted.",
        "Site: restore p5 from a copy of this disk.";
    JobsMake = 607, "p5 cannot be made",
        "Formatting failed: the partition is too small, the disk reports errors, or memory is \
         short.",
        "Site: check the free space under disk.qcow2 and give the VM the memory that launch_vm.sh \
         names.";
    Register = 608, "a key holder does not register this disk",
        "It remembers another digest for this image, or failed to store this one.",
        "Party: see the key holder's log. Site: start the VM again; nothing was lost.";
    StateHeader = 611, "state's header is not one that this image makes",
        "The LUKS2 header of p3's state area names another cipher, key size, integrity or keyslot: \
         somebody replaced it.",
        "Site: restore p3 from a copy of this disk, and find out who changed it.";
    StateHeaderMac = 612, "state's header is not authentic",
        "The header of p3's state area is well formed but its MAC does not verify: it was made \
         with another key.",
        "Site: restore p3 from a copy of this disk, and find out who changed it.";
    StateWiped = 613, "state was wiped",
        "The key holders remember that this image was sealed, and p3's state area is empty.",
        "Site: restore p3 from a copy of this disk.";
    StateOpen = 616, "state does not open",
        "The derived key opens no keyslot, device-mapper refused it, or its file system cannot be \
         mounted.",
        "Site: restore p3 from a copy of this disk.";
    StateMake = 617, "state cannot be made",
        "Formatting failed: the area is too small, the disk reports errors, or memory is short.",
        "Site: check the free space under disk.qcow2 and give the VM the memory that launch_vm.sh \
         names.";
    MachineElsewhere = 618, "this image is bound to another machine",
        "p5 and state need a secret that another machine's TPM keeps: the disk was moved or \
         copied, or this VM's TPM state was replaced.",
        "Site: start it where it ran before. Parties: to let it run here, all of you say \
         `flare-cvm keyholder seal move IMAGE`.";
    Machine = 619, "this machine does not give its secret",
        "The TPM refused to store or to read an NV index, or its memory is full; or SEV-SNP's \
         firmware derived no key.",
        "Site: restart the VM and its TPM; free NV space in the TPM. With SEV-SNP: see the host's \
         log.";
    Mkfs = 621, "mkfs.ext4 failed",
        "The verified system volume has no working mkfs.ext4, or memory is short.",
        "Builder: keep e2fsprogs in the base stage. Site: give the VM the memory that launch_vm.sh \
         names.";
    Data = 701, "p6 cannot be attached read-only",
        "The kernel refused to lock p6, or p6 holds no clean ext4.",
        "Site: check p6 with `e2fsck`, and fill it only while the VM is off.";
    HandoffMeasure = 801, "the handoff cannot be measured",
        "The TPM refused to extend PCR 11, or the kernel of a TD offers no RTMR3 (Linux 6.16 and \
         later do).",
        "Site: restart the VM with its swtpm. Builder: for TDX build the stages with --profile \
         debian-12-tdx.";
    SwitchRoot = 802, "the system cannot be started",
        "A mount could not be moved, or the system volume has no /sbin/init.",
        "Builder: rebuild the image; the stage's gate should have found this.";
    JobsMeasure = 803, "the opening of p5 cannot be measured",
        "The TPM refused to extend PCR 15, or a TD its RTMR3, after p5 and state were opened in \
         the running system.",
        "Site: restart the VM with its swtpm.";
    Panic = 901, "cvm-init failed unexpectedly",
        "A defect in cvm-init: the line above names its place.",
        "Report it with the console's text.";
}

impl Code {
    /// The number in `FC-nnn`.
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FC-{:03}", self.number())
    }
}

/// Why a boot ended: a code and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {title}: {detail}", title = code.row().title)]
pub struct Failure {
    /// The row of the table.
    pub code: Code,
    /// What was expected and found; public, no secret.
    pub detail: String,
}

impl Failure {
    /// A failure with its detail.
    pub fn new(code: Code, detail: impl fmt::Display) -> Self {
        Self { code, detail: detail.to_string() }
    }
}

/// Gives an error its code.
pub trait Coded<T> {
    /// The error's text becomes the failure's detail.
    fn code(self, code: Code) -> Result<T, Failure>;
    /// The same, with what was attempted in front.
    fn code_at(self, code: Code, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Coded<T> for Result<T, E> {
    fn code(self, code: Code) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(code, e))
    }

    fn code_at(self, code: Code, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(code, format_args!("{what}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as `docs/boot-codes.md` holds it.
    fn render() -> String {
        let mut text = String::from(
            "# Boot codes\n\n\
         When a sealed VM cannot boot, `cvm-init` wipes what it holds, prints `FC-nnn` with cause\n\
         and cure on the serial console and powers the VM off. So does `cvm-jobs` where it cannot\n\
         open p5 and `state` in the running system of an image that requires GPUs. This table is\n\
         rendered from `initramfs/src/codes.rs`\n\
         (`UPDATE=1 cargo test --release -p cvm-init boot_codes`); a test keeps both equal.\n\n\
         | code | what | probable cause | cure |\n|---|---|---|---|\n",
        );
        for code in Code::ALL {
            let CodeRow { title, cause, cure } = code.row();
            text += &format!("| {code} | {title} | {cause} | {cure} |\n");
        }
        text
    }

    #[test]
    fn the_boot_codes_page_is_this_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/boot-codes.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(page, render()).unwrap();
        }
        assert!(
            std::fs::read_to_string(page).unwrap() == render(),
            "docs/boot-codes.md is old: run with UPDATE=1"
        );
    }

    #[test]
    fn numbers_ascend_and_no_text_is_empty_or_breaks_the_table() {
        assert!(Code::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        for code in Code::ALL {
            let CodeRow { title, cause, cure } = code.row();
            for text in [title, cause, cure] {
                assert!(!text.is_empty() && !text.contains(['|', '\n']), "{code}: {text}");
            }
        }
    }
}
