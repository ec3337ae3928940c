//! Self-checks, each fatal. A changed binary is a changed measurement and gets no key; these checks
//! are the second layer.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
};

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::split_key;
use cvm_layout::code_digest::code_segment;

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
};

/// Known-answer tests of X25519, HKDF-SHA256 and AES-256.
pub fn known_answers() -> Result<(), Failure> {
    split_key::self_test().code(Code::SelfTest)?;
    step("self-test", "X25519, HKDF-SHA256 and AES-256 give the known answers");
    Ok(())
}

/// The code of this process, as it lies in memory, against the manifest.
pub fn own_code(expected: Bytes32) -> Result<(), Failure> {
    let found = sha256(&code_in_memory().code(Code::CodeSegment)?);
    if found != expected {
        return Err(Failure::new(
            Code::CodeSegment,
            format_args!("SHA-256 is {found}, the manifest says {expected}"),
        ));
    }
    step("self-check", "the code in memory is the builder's");
    Ok(())
}

/// The bytes of the executable segment out of `/proc/self/mem`: what runs, not what was loaded.
fn code_in_memory() -> Result<Vec<u8>, String> {
    let executable = fs::read("/proc/self/exe").map_err(|e| format!("/proc/self/exe: {e}"))?;
    let code = code_segment(&executable).map_err(|e| e.to_string())?;
    let path = fs::read_link("/proc/self/exe").map_err(|e| format!("/proc/self/exe: {e}"))?;
    let maps =
        fs::read_to_string("/proc/self/maps").map_err(|e| format!("/proc/self/maps: {e}"))?;
    let start = mapped_at(&maps, &path.to_string_lossy(), code.offset)
        .ok_or("no r-x mapping holds the code")?;
    let mut bytes = vec![0; code.length as usize];
    let mut memory = File::open("/proc/self/mem").map_err(|e| format!("/proc/self/mem: {e}"))?;
    let mut read =
        || memory.seek(SeekFrom::Start(start)).and_then(|_| memory.read_exact(&mut bytes));
    read().map_err(|e| format!("/proc/self/mem: {e}"))?;
    Ok(bytes)
}

/// The address at which byte `offset` of the file `path` is mapped readable and executable, and
/// not writable.
fn mapped_at(maps: &str, path: &str, offset: u64) -> Option<u64> {
    let hex = |text| u64::from_str_radix(text, 16).ok();
    maps.lines().find_map(|line| {
        // 55d0c8a3e000-55d0c8a4f000 r-xp 00002000 fe:01 1234    /init
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (hex(start)?, hex(end)?);
        let right = fields.next()? == "r-xp";
        let first = hex(fields.next()?)?;
        let same = fields.nth(2)? == path;
        let within = offset.checked_sub(first)?;
        (right && same && within < end - start).then_some(start + within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_the_code_of_its_file() {
        let file = fs::read("/proc/self/exe").unwrap();
        let expected = cvm_layout::code_digest::code_sha256(&file).unwrap();
        own_code(expected).unwrap();
        let failure = own_code(Bytes32 { 0: [0; 32] }).unwrap_err();
        assert_eq!(failure.code, Code::CodeSegment);
    }

    #[test]
    fn a_writable_or_foreign_mapping_is_not_the_code() {
        let maps =
            "1000-2000 rwxp 00001000 fe:01 12 /init\n3000-4000 r-xp 00001000 fe:01 12 /lib/x.so\n";
        assert_eq!(mapped_at(maps, "/init", 0x1800), None);
        let maps = format!("{maps}5000-7000 r-xp 00001000 fe:01 12   /init\n");
        assert_eq!(mapped_at(&maps, "/init", 0x1800), Some(0x5800));
        assert_eq!(mapped_at(&maps, "/init", 0x3000), None);
    }

    #[test]
    fn known_answers_are_known() {
        known_answers().unwrap();
    }
}
