//! The ceremony as its users hold it: the legal agreement compared, and a build's name used once.

use std::path::{Path, PathBuf};

use super::{Run, flare_cvm, folder, write};

/// Two parties and a builder in a folder, and two documents that may be their legal agreement.
struct Scene {
    folder: PathBuf,
    legal: String,
    other: String,
}

impl Scene {
    fn new(test: &str) -> Self {
        let folder = folder(test);
        let legal = write(folder.join("agreement.pdf"), "the data owner may end this on any day");
        let other = write(folder.join("other.pdf"), "the data owner may never end this");
        let scene = Self { folder, legal, other };
        write(scene.folder.join("policy.rego"), "package policy\ndefault allow := false\n");
        scene.run("init-builder @builder --name builder").good();
        for (name, role) in [("model", "model_owner"), ("data", "data_owner")] {
            let who = format!("--name {name} --role {role} --keyholder https://kh.example:8443");
            scene.run(&format!("init @{name} {who} --policy @policy.rego")).good();
        }
        scene
    }

    /// `ceremony`, its arguments separated by blanks; `@NAME` is a path in the folder.
    fn run(&self, arguments: &str) -> Run {
        let words = ["ceremony"].into_iter().chain(arguments.split_whitespace());
        let words: Vec<_> =
            words.map(|word| word.replace('@', &format!("{}/", self.folder.display()))).collect();
        flare_cvm(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn invite(&self, legal: &str) {
        let terms = "--project p --builder @builder/builder.txt --site s=server -o @invite.txt";
        self.run(&format!("invite @model {terms} {legal}")).good();
    }

    fn agree(&self) {
        for party in ["model", "data"] {
            let files = "--invite @invite.txt --join @join.txt --agreement @agreement.txt --yes";
            self.run(&format!("agree @{party} {files}")).good();
        }
    }

    fn there(&self, name: &str) -> bool {
        Path::new(&self.folder).join(name).exists()
    }
}

const JOIN: &str = "join @data @invite.txt -o @join.txt --yes";

#[test]
fn attack_another_legal_agreement_than_the_one_that_was_signed() {
    let scene = Scene::new("ceremony-legal");
    let (legal, other) = (&scene.legal, &scene.other);
    scene.invite(&format!("--legal {legal}"));
    let refused = scene.run(&format!("{JOIN} --legal {other}")).failed("CER-035");
    assert!(
        refused.err.contains("other.pdf is not the legal agreement of the invitation"),
        "{}",
        refused.err
    );
    assert!(!scene.there("join.txt"), "nothing was signed");
    scene.run(JOIN).good().says("legal agreement: not compared; say --legal FILE");
    scene
        .run(&format!("{JOIN} --legal {legal}"))
        .good()
        .says("is the document that the invitation names");

    scene.agree();
    scene
        .run(&format!("verify @agreement.txt --legal {legal}"))
        .good()
        .says("valid: legal agreement");
    scene.run(&format!("verify @agreement.txt --legal {other}")).failed("CER-035");
}

#[test]
fn a_document_where_none_was_agreed_on_is_refused() {
    let scene = Scene::new("ceremony-no-legal");
    scene.invite("");
    let refused = scene.run(&format!("{JOIN} --legal {}", scene.legal)).failed("CER-035");
    assert!(refused.err.contains("names none"), "{}", refused.err);
    assert!(!scene.run(JOIN).good().out.contains("legal agreement: not compared"));
}

#[test]
fn attack_a_second_contribution_under_one_builds_name() {
    let scene = Scene::new("ceremony-build");
    scene.invite("");
    scene.run(JOIN).good();
    scene.agree();
    let contribute = |build: &str, output: &str| {
        scene.run(&format!(
            "contribute @data --agreement @agreement.txt --role server --build {build} -o @{output}"
        ))
    };
    contribute("v1", "first.txt").good().says("of build v1, until 20");
    let refused = contribute("v1", "second.txt").failed("CER-033");
    assert!(!scene.there("second.txt"), "{}", refused.err);
    contribute("v2", "second.txt").good();
    let kept = scene.folder.join("data/contributions");
    let kept =
        std::fs::read_dir(kept).unwrap().next().unwrap().unwrap().path().join("server.v1.txt");
    assert_eq!(
        std::fs::read(kept).unwrap(),
        std::fs::read(scene.folder.join("first.txt")).unwrap()
    );
}
