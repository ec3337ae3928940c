//! As much of a bundle as predictions read: a disk with a signed loader and UKI, variables,
//! `reference.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cvm_base::sha256;
use cvm_evidence::Reference;
use cvm_image::boot::{
    LOADER_PATH, UKI_PATH,
    disk::{self, Content},
    fat,
    secure_boot::{Databases, Keys},
    uki,
};
use cvm_layout::layout::{Contents, Layout};
use cvm_predict::{Inputs, tpm};

pub struct Bundle {
    pub folder: PathBuf,
    pub uki: Vec<u8>,
    pub reference: Reference,
}

impl Bundle {
    pub fn new(folder: &Path) -> Self {
        let bundle = folder.join("bundle");
        fs::create_dir_all(&bundle).unwrap();
        let keys = Keys::open_or_create(&folder.join("keys")).unwrap();
        let (loader, firmware) = (keys.signed_loader().unwrap(), keys.firmware(None).unwrap());
        let manifest = sha256(b"manifest.json");
        // A kernel as far as the stub's builder looks.
        let mut kernel = vec![0; 4096];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        let parts = uki::Parts {
            kernel: &kernel,
            initrd: b"initramfs",
            os_release: "ID=lab\n",
            cmdline: &uki::cmdline(&manifest),
        };
        let uki = keys.sign("the kernel image", &uki::build(&parts).unwrap()).unwrap();

        let layout = Layout::parse(include_str!("../../../../partitions/small.yaml")).unwrap();
        let fat = |number, label, path: &str, content: &[u8]| {
            let files = fat::Files::from([(path.to_owned(), content.to_vec())]);
            fat::make(layout.exact_size(number).unwrap(), label, &files).unwrap()
        };
        let (p1, p2) = (fat(1, "ESP", LOADER_PATH, &loader), fat(2, "BOOT", UKI_PATH, &uki));
        let mut contents = [Content::Nothing; 6];
        (contents[0], contents[1]) = (Content::Bytes(&p1), Content::Bytes(&p2));
        let placement = layout.place(&Contents::default()).unwrap();
        let image = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        disk::build(&bundle.join("disk.qcow2"), &placement, &image, contents).unwrap();

        let Databases { pk, kek, db, dbx, db_authority } = &firmware.databases;
        let inputs =
            Inputs { loader: &loader, uki: &uki, pk, kek, db, dbx, authority: db_authority };
        let platforms = cvm_evidence::reference::Platforms::default();
        let reference = Reference::new(image, manifest, tpm(&inputs).unwrap(), platforms);
        fs::write(bundle.join("reference.json"), reference.to_bytes()).unwrap();
        fs::write(bundle.join("OVMF_VARS.fd"), &firmware.variables).unwrap();
        Self { folder: bundle, uki, reference }
    }

    /// Runs `predict` on the bundle; its further arguments are separated by blanks.
    pub fn predict(&self, arguments: &str) -> crate::Run {
        let folder = self.folder.display().to_string();
        crate::flare_cvm(
            &[&["predict", &folder], &arguments.split(' ').collect::<Vec<_>>()[..]].concat(),
        )
    }
}
