//! The shared libraries that a program needs, found without running it.
//!
//! `ldd` runs the program's own interpreter. Reading `DT_NEEDED` ourselves gives the same closure,
//! and names a missing library now, rather than in a boot that fails in silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use cvm_base::read_bounded;
use object::{
    Endianness,
    elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64, PT_INTERP},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

use super::BootError;
use crate::tree;

/// Where Debian's and Ubuntu's loader looks when nothing else is configured, in its order.
const FOLDERS: [&str; 4] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib"];
/// More than any of our libraries has, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Loaded by name at run time (`dlopen`): the TPM's device driver interface.
const LOADED_AT_RUN_TIME: [&str; 1] = ["libtss2-tcti-device.so.0"];

/// Path → content of `program`'s loader and of every library that it needs. They are looked for
/// below `root`: this machine's `/`, or a stage's tree.
pub(crate) fn closure(root: &Path, program: &Path) -> Result<BTreeMap<String, Vec<u8>>, BootError> {
    let missing = |name: &str| BootError::Library {
        path: name.into(),
        problem: "it is needed and not installed".into(),
    };
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (interpreter, mut wanted) = needs(program, &read_bounded(program, MAX_BYTES)?)?;
    if let Some(path) = interpreter {
        let file = tree::resolve(root, Path::new(&path)).ok_or_else(|| missing(&path))?;
        found.insert(path.clone(), read_bounded(&file, MAX_BYTES)?);
        seen.extend(Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    wanted.extend(LOADED_AT_RUN_TIME.map(str::to_owned));
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(&name));
        let place = places.find_map(|path| Some((tree::resolve(root, &path)?, path)));
        let (file, path) = place.ok_or_else(|| missing(&name))?;
        let bytes = read_bounded(&file, MAX_BYTES)?;
        wanted.extend(needs(&path, &bytes)?.1);
        found.insert(path.to_string_lossy().into_owned(), bytes);
    }
    Ok(found)
}

/// The program's interpreter (`PT_INTERP`) and the names of the libraries that it needs.
fn needs(path: &Path, elf: &[u8]) -> Result<(Option<String>, Vec<String>), BootError> {
    let refuse =
        |problem: &str| BootError::Library { path: path.to_owned(), problem: problem.into() };
    let unreadable = |_: object::Error| refuse("it is not a readable 64-bit ELF file");
    let header = FileHeader64::<Endianness>::parse(elf).map_err(unreadable)?;
    let endian = header.endian().map_err(unreadable)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();

    let mut interpreter = None;
    for segment in header.program_headers(endian, elf).map_err(unreadable)? {
        if segment.p_type(endian) == PT_INTERP {
            let bytes = segment
                .data(endian, elf)
                .map_err(|()| refuse("its interpreter lies outside the file"))?;
            interpreter = Some(text(bytes));
        }
    }
    let sections = header.sections(endian, elf).map_err(unreadable)?;
    let mut names = Vec::new();
    if let Some((entries, strings)) = sections.dynamic(endian, elf).map_err(unreadable)? {
        let strings = sections.strings(endian, elf, strings).map_err(unreadable)?;
        for entry in entries {
            let tag = entry.d_tag(endian);
            if tag == DT_NEEDED {
                names.push(text(entry.string(endian, strings).map_err(unreadable)?));
            } else if tag == DT_RPATH || tag == DT_RUNPATH {
                return Err(refuse("it names its own library folders (RPATH or RUNPATH)"));
            }
        }
    }
    Ok((interpreter, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_ldd_finds() {
        let program = std::env::current_exe().unwrap();
        let ldd = std::process::Command::new("ldd").arg(&program).output().unwrap();
        let text = String::from_utf8(ldd.stdout).unwrap();
        let expected: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
            .filter_map(|path| path.rsplit('/').next())
            .collect();
        let found = closure(Path::new("/"), &program).unwrap();
        let names: BTreeSet<&str> =
            found.keys().filter_map(|path| path.rsplit('/').next()).collect();
        assert!(expected.is_subset(&names), "{expected:?} in {names:?}");
        assert!(names.contains("libtss2-tcti-device.so.0") && names.contains("libtss2-mu.so.0"));
        assert!(found.contains_key("/lib64/ld-linux-x86-64.so.2"));
    }
}
