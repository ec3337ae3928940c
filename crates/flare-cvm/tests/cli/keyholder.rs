//! `flare-cvm keyholder`, as an operator without a service uses it.

use serde_json::json;

use crate::{Run, flare_cvm, folder};

fn run(arguments: &str) -> Run {
    flare_cvm(&arguments.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn consent_is_withdrawn_shown_and_given_again() {
    let party = folder("keyholder-withdraw").join("hospital");
    let dir = party.display();
    run(&format!("ceremony init {dir} --name hospital --role data_owner --keyholder https://kh.example:8443")).good();
    let image = "0102030405060708090a0b0c0d0e0f10";
    run(&format!("keyholder withdraw {image} --reason decommissioned --dir {dir}"))
        .good()
        .says(&format!("withdrew image {image}"));
    run(&format!("keyholder withdraw --site site-1 --dir {dir}")).good();
    run(&format!("keyholder withdraw --chip 0123456789abcdef --dir {dir}")).good();

    let images = run(&format!("keyholder images --json --dir {dir}")).good();
    let lines: Vec<serde_json::Value> = images.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let subjects: Vec<_> = lines.iter().map(|line| &line["withdrawal"]["subject"]).collect();
    assert_eq!(subjects, [&json!({"image": image}), &json!({"site": "site-1"}), &json!({"chip": "0123456789abcdef"})]);
    assert_eq!(lines[0]["withdrawal"]["reason"], "decommissioned");
    run(&format!("keyholder images --dir {dir}")).good().says("site site-1").says("\"decommissioned\"");

    run(&format!("keyholder withdraw --site site-1 --undo --dir {dir}")).good().says("consent again");
    run(&format!("keyholder withdraw --site site-1 --undo --dir {dir}")).failed("KEY-019");
    run(&format!("keyholder log --dir {dir}")).good().says("withdraw").says("restore");
    run(&format!("keyholder log verify --dir {dir}")).good().says("intact: 4 entries");
    for nothing in ["", "--site a --chip 0123456789abcdef", "--site a --undo --reason b", "--chip 00"] {
        let wrong = run(&format!("keyholder withdraw {nothing} --dir {dir}"));
        assert_eq!(wrong.status, Some(2), "{nothing}");
    }
}
