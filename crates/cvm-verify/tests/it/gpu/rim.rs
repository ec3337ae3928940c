//! Manifests: any change of what is signed is refused, and so is any other way to sign.

use cvm_verify::gpu::{GpuError, Rim, Roots};

use super::{IN_2024, LATER, read, synthetic::World};

const NAME: &str = "h100-545.00-e2e/vbios-rim.xml";

fn text() -> String {
    String::from_utf8(read(NAME)).unwrap()
}

fn verdict(xml: &str) -> Result<(), GpuError> {
    Rim::parse(xml.as_bytes(), None)?.check(&Roots::nvidia().unwrap(), IN_2024)
}

/// Other bytes with the same canonical form are the same document.
#[test]
fn what_canonicalization_forgives() {
    let xml = text();
    verdict(&xml).unwrap();
    let again = |from: &str, to: &str| {
        assert!(xml.contains(from), "{from}");
        verdict(&xml.replacen(from, to, 1)).unwrap();
    };
    again(
        "<SoftwareIdentity ",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<SoftwareIdentity\n\t",
    );
    again("corpus=\"false\" name=\"GH100\"", "name='GH100'   corpus=\"false\"");
    again(
        "role=\"softwareCreator tagCreator\"/>",
        "role=\"softwareCreator&#x20;tagCreator\" ></ns0:Entity >",
    );
    again("<ds:SignatureValue>", "<ds:SignatureValue>\n ");
    again("name=\"NVIDIA Corporation\"", "name=\"NVIDIA\nCorporation\"");
    again("</SoftwareIdentity>", "</SoftwareIdentity>\n\n");
    verdict(&xml.replace('\n', "\r\n")).unwrap();
}

#[test]
fn attack_any_change_of_the_signed_content() {
    let xml = text();
    let signature = xml.find("<ds:Signature ").unwrap();
    let mut refused = 0;
    // Bytes of the head and the first measurements, and a stride: another letter, none, one more in
    // turn.
    for at in (0..signature).filter(|at| *at < 1600 && at % 3 == 0 || at % 97 == 0) {
        let mut bytes = xml.clone().into_bytes();
        match refused % 3 {
            0 => bytes[at] ^= 1,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, b'0'),
        }
        let changed = String::from_utf8(bytes).unwrap();
        // Space within a tag is not content.
        if !changed.split_whitespace().eq(xml.split_whitespace()) {
            assert!(verdict(&changed).is_err(), "byte {at}");
            refused += 1;
        }
    }
    assert!(refused > 600, "{refused}");
    // Space between elements is content.
    let at = xml.find("    <ns0:Meta").unwrap();
    for changed in
        [format!("{} {}", &xml[..at], &xml[at..]), format!("{}\n{}", &xml[..at], &xml[at..])]
    {
        assert!(verdict(&changed).is_err());
    }
    // So are prefixes and declarations that change no meaning.
    for (from, to) in [
        ("<ns0:Entity", "<Entity"),
        (" xmlns:SHA384=\"http://www.w3.org/2001/04/xmlenc#sha384\"", ""),
        ("xmlns:ns2=", "xmlns:n=\"u\" xmlns:ns2="),
        ("role=\"softwareCreator tagCreator\"", "role=\"softwareCreator&#xA;tagCreator\""),
    ] {
        assert!(xml.contains(from), "{from}");
        assert!(verdict(&xml.replacen(from, to, 1)).is_err(), "{from}");
    }
}

/// The signed document, what is signed of the signature, and the signature's value. What follows
/// are certificates.
#[test]
fn attack_every_bit_of_a_manifest() {
    let xml = text();
    let end = xml.find("<ds:KeyInfo>").unwrap();
    let roots = Roots::nvidia().unwrap();
    let verdict = |xml: &str| Rim::parse(xml.as_bytes(), None)?.check(&roots, IN_2024);
    verdict(&xml).unwrap();
    let mut bytes = xml.into_bytes();
    for bit in (0..8 * end).step_by(if cfg!(debug_assertions) { 41 } else { 1 }) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = str::from_utf8(&bytes) {
            assert!(verdict(changed).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn attack_other_algorithms_keys_and_references() {
    let xml = text();
    for (from, to) in [
        ("xmldsig-more#ecdsa-sha384", "xmldsig-more#hmac-sha384"),
        ("xmldsig-more#ecdsa-sha384", "xmldsig-more#rsa-sha384"),
        ("xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha256"),
        (
            "#ecdsa-sha384\"/>",
            "#ecdsa-sha384\"><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>",
        ),
        ("<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"/>", ""),
        (
            "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"",
            "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\"",
        ),
        ("<ds:Reference URI=\"\">", "<ds:Reference URI=\"#x\">"),
        ("<ds:Reference URI=\"\">", "<ds:Reference URI=\"file:///dev/null\">"),
        ("<ds:Reference URI=\"\">", "<ds:Reference>"),
        ("<ds:Reference URI=\"\">", "<ds:Reference Id=\"x\" URI=\"\">"),
        (
            "<ds:Transforms>",
            "<ds:Transforms><ds:Transform \
             Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"/>",
        ),
        ("<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"/>", ""),
        ("xmldsig-more#sha384", "xmldsig#sha1"),
        ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyName>k</ds:KeyName>"),
        ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyValue/>"),
        ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>"),
        ("<ds:X509Data>", "<ds:X509Data>text"),
        ("</ds:Reference>", "</ds:Reference><ds:Reference URI=\"\"/>"),
        ("<ds:SignatureValue>", "<ds:SignatureValue><x/>"),
        ("<ds:Signature ", "<ds:Signature Id=\"s\" "),
        ("ds:Signature", "Signature"),
    ] {
        assert!(xml.contains(from), "{from}");
        let error = verdict(&xml.replace(from, to)).unwrap_err();
        assert!(matches!(error, GpuError::RimSignature { .. }), "{to}: {error}");
    }
    let unsigned = format!("{}</SoftwareIdentity>", &xml[..xml.find("<ds:Signature ").unwrap()]);
    assert!(matches!(verdict(&unsigned), Err(GpuError::RimSignature { .. })));
}

/// What is signed moves, and something else takes its place.
#[test]
fn attack_signature_wrapping() {
    let xml = text();
    let forged = xml.replacen("568b89291a34cece", "0000000000000000", 1);
    let (body, signature) = forged.split_at(forged.find("<ds:Signature ").unwrap());
    let signature = &signature[..signature.find("</SoftwareIdentity>").unwrap()];
    let head = &xml[..xml.find('>').unwrap() + 1];
    for wrapped in [
        // The genuine document within another one, within the signature, after it, as an object of
        // it.
        format!("{head}{xml}{body}{signature}</SoftwareIdentity>"),
        format!(
            "{body}{}{xml}</ds:Signature></SoftwareIdentity>",
            signature.trim_end_matches("</ds:Signature>")
        ),
        format!(
            "{body}{}<ds:Object>{xml}</ds:Object></ds:Signature></SoftwareIdentity>",
            signature.trim_end_matches("</ds:Signature>")
        ),
        format!("{body}{signature}{xml}</SoftwareIdentity>"),
        // A second payload, before and after the genuine one; a second signature; the signature
        // elsewhere.
        forged.replacen("</ns0:Payload>", "</ns0:Payload><ns0:Payload/>", 1),
        xml.replacen("<ns0:Payload", "<ns0:Payload></ns0:Payload><ns0:Payload", 1),
        format!("{body}{signature}{signature}</SoftwareIdentity>"),
        xml.replacen("<ns0:Payload ", &format!("<x>{signature}</x><ns0:Payload "), 1),
        format!("{head}{signature}{}", &body[head.len()..]) + "</SoftwareIdentity>",
        format!("{xml}{xml}"),
        forged.clone(),
        // A signature of another manifest of NVIDIA's.
        format!("{}{signature}</SoftwareIdentity>", &body[..body.len()]),
    ] {
        assert!(verdict(&wrapped).is_err());
    }
}

#[test]
fn attack_manifests_under_another_root() {
    let world = World::new();
    let xml = world.rim("GH100", "545.00", &[(0, &[0; 48], true)]);
    let rim = Rim::parse(xml.as_bytes(), None).unwrap();
    rim.check(&world.roots(), LATER).unwrap();
    let error = rim.check(&Roots::nvidia().unwrap(), LATER).unwrap_err();
    assert!(matches!(error, GpuError::Chain { .. }), "{error}");
}

/// Signed, but not what a manifest is: read by some one way, by others another.
#[test]
fn what_is_no_manifest() {
    let world = World::new();
    let resource = |attributes: &str| {
        format!("<ns0:Resource {attributes} type=\"Measurement\"></ns0:Resource>")
    };
    let hash = |n: usize| format!("ns2:Hash{n}=\"{}\"", "00".repeat(48));
    let good = format!(
        "active=\"True\" alternatives=\"1\" index=\"0\" name=\"M\" size=\"48\" {}",
        hash(0)
    );
    let content = |payload: &str| {
        format!(
            "<ns0:Entity></ns0:Entity><ns0:Meta \
             xmlns:ns1=\"https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/\" colloquialVersion=\"1\" product=\"GH100\" ns1:FirmwareManufacturerId=\"5703\"></ns0:Meta><ns0:Payload>{payload}</ns0:Payload>"
        )
    };
    let parse = |content: &str| Rim::parse(world.sign_rim(content).as_bytes(), None);
    parse(&content(&resource(&good))).unwrap();
    let two = good
        .replace("index=\"0\"", "index=\"1\"")
        .replace("alternatives=\"1\"", "alternatives=\"2\"")
        + " "
        + &hash(1);
    let both = [resource(&good), resource(&two)].concat();
    assert_eq!(parse(&content(&both)).unwrap().golden_values(), 2);
    for payload in [
        String::new(),
        resource(&good.replace("True", "False")),
        resource(&good.replace("True", "true")),
        resource(&good.replace("index=\"0\"", "index=\"256\"")),
        resource(&good.replace("index=\"0\"", "index=\"-1\"")),
        resource(&good.replace("alternatives=\"1\"", "alternatives=\"0\"")),
        resource(&good.replace("alternatives=\"1\"", "alternatives=\"2\"")),
        resource(&good.replace("size=\"48\"", "size=\"32\"")),
        resource(&good.replace("Hash0", "Hash1")),
        resource(&good.replace("ns2:Hash0", "Hash0")),
        resource(&good.replace("name=\"M\" ", "")),
        resource(&format!("{good} {}", hash(1))),
        resource(&format!("{good} extra=\"1\"")),
        resource(&good).replace("Measurement", "File"),
        [resource(&good), resource(&good)].concat(),
        format!("{}<x></x>", resource(&good)),
        format!("text{}", resource(&good)),
        resource(&good).replace("></", "><y></y></"),
    ] {
        assert!(parse(&content(&payload)).is_err(), "{payload:.200}");
    }
    for (from, to) in [
        ("<ns0:Entity></ns0:Entity>", ""),
        ("colloquialVersion=\"1\"", ""),
        ("product=\"GH100\"", ""),
        ("</ns0:Payload>", "</ns0:Payload><ns0:Link></ns0:Link>"),
        ("ns0:Payload", "ns2:Payload"),
    ] {
        assert!(parse(&content(&resource(&good)).replace(from, to)).is_err(), "{from}");
    }
}
