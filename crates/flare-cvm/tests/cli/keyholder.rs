//! `flare-cvm keyholder`, as an operator without a service uses it.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::{Run, flare_cvm, folder, write};

fn run(arguments: &str) -> Run {
    flare_cvm(&arguments.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn consent_is_withdrawn_shown_and_given_again() {
    let party = folder("keyholder-withdraw").join("hospital");
    let dir = party.display();
    run(&format!(
        "ceremony init {dir} --name hospital --role data_owner --keyholder https://kh.example:8443"
    ))
    .good();
    let image = "0102030405060708090a0b0c0d0e0f10";
    run(&format!("keyholder withdraw {image} --reason decommissioned --dir {dir}"))
        .good()
        .says(&format!("withdrew image {image}"));
    run(&format!("keyholder withdraw --site site-1 --dir {dir}")).good();
    run(&format!("keyholder withdraw --chip 0123456789abcdef --dir {dir}")).good();

    let images = run(&format!("keyholder images --json --dir {dir}")).good();
    let lines: Vec<serde_json::Value> =
        images.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let subjects: Vec<_> = lines.iter().map(|line| &line["withdrawal"]["subject"]).collect();
    assert_eq!(
        subjects,
        [
            &json!({"image": image}),
            &json!({"site": "site-1"}),
            &json!({"chip": "0123456789abcdef"})
        ]
    );
    assert_eq!(lines[0]["withdrawal"]["reason"], "decommissioned");
    run(&format!("keyholder images --dir {dir}"))
        .good()
        .says("site site-1")
        .says(": decommissioned");

    run(&format!("keyholder withdraw --site site-1 --undo --dir {dir}"))
        .good()
        .says("consent again");
    run(&format!("keyholder withdraw --site site-1 --undo --dir {dir}")).failed("KEY-019");
    run(&format!("keyholder log --dir {dir}")).good().says("withdraw").says("restore");
    run(&format!("keyholder log verify --dir {dir}")).good().says("intact: 4 entries");
    for nothing in
        ["", "--site a --chip 0123456789abcdef", "--site a --undo --reason b", "--chip 00"]
    {
        let wrong = run(&format!("keyholder withdraw {nothing} --dir {dir}"));
        assert_eq!(wrong.status, Some(2), "{nothing}");
    }
}

/// Ends it, whatever a test finds.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_started_key_holder_leaves_no_dump_and_no_swap() {
    let folder = folder("keyholder-serve");
    let policy = write(folder.join("policy.rego"), "package policy\ndefault allow := false\n");
    let party = folder.join("hospital");
    let dir = party.display();
    let role = "--role data_owner --keyholder https://kh.example:8443";
    run(&format!("ceremony init {dir} --name hospital {role} --policy {policy}")).good();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flare-cvm"));
    command
        .args(["keyholder", "serve", "--listen", "127.0.0.1:0", "--dir"])
        .arg(&party)
        .stdout(Stdio::piped());
    let mut serving = Serving(command.spawn().unwrap());
    let lines = BufReader::new(serving.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<_> = lines.take_while(|line| !line.starts_with("ready ")).collect();
    let warned = said.iter().any(|line| line.starts_with("warning: memory is not locked"));

    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", serving.0.id())).unwrap();
    let core = proc("limits")
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .map(str::to_owned)
        .unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"], "{core}");
    let status = proc("status");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    assert_ne!(
        locked.trim() == "0 kB",
        !warned,
        "either its memory is locked, or it says why not: {status}"
    );
}
