use super::*;

#[test]
fn what_is_written_reads_back() {
    let mut rules = Rules::default();
    rules.family.kin.insert(PeerId([7; 32]), Kin::Parent);
    rules.family.others = Kin::Child;
    set(&mut rules, "odd \"name\"", &[("write", "parent, child"), ("mode", "windowed:90")]).expect("valid");
    set(&mut rules, "collections.shares", &[("class", "low")]).expect("valid");
    assert_eq!(rules.table.of_collection("shares").class, Class::Low);
    assert_eq!(Rules::parse(&rules.to_toml()), Ok(rules));
    assert_eq!(Rules::parse(&Rules::default().to_toml()), Ok(Rules::default()));
}

fn set(rules: &mut Rules, section: &str, settings: &[(&str, &str)]) -> Result<(), BadRules> {
    let settings: Vec<_> = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    rules.set(section, &settings)
}

#[test]
fn shares_and_hierarchy_are_set_together_or_not_at_all() {
    let mut rules = Rules::default();
    // In this order the first alone would be too much.
    set(&mut rules, SHARES, &[("critical", "50"), ("high", "20")]).expect("valid");
    assert_eq!(Class::ALL.map(|class| rules.table.shares().of(class)), [50, 20, 20, 8, 2]);
    let (a, b) = (PeerId([1; 32]), PeerId([2; 32]));
    set(&mut rules, HIERARCHY, &[("parents", &format!("{a}, {b}")), ("role", "hub")]).expect("valid");
    assert_eq!((rules.family.of(&a), rules.family.of(&b)), (Some(Kin::Parent), Some(Kin::Parent)));
    assert_eq!(rules.family.others, Kin::Child);
    // A new list takes the place of the old one; who stands in another list now is nothing else.
    set(&mut rules, HIERARCHY, &[("parents", &a.to_string()), ("siblings", &a.to_string())]).expect("valid");
    assert_eq!(rules.family.kin, [(a, Kin::Sibling)].into());
    let before = rules.clone();
    for (section, settings) in [
        (SHARES, [("critical", "60"), ("low", "8")]),
        (SHARES, [("critical", "40"), ("low", "none")]),
        (HIERARCHY, [("parents", ""), ("others", "aunt")]),
        (HIERARCHY, [("parents", ""), ("role", "king")]),
        (HIERARCHY, [("parents", ""), ("cousins", "")]),
        ("notes", [("class", "high"), ("mode", "fast")]),
    ] {
        set(&mut rules, section, &settings).expect_err("one of them is bad");
        assert_eq!(rules, before, "{settings:?}");
    }
}

#[test]
fn a_file_says_only_what_differs() {
    let text = "
        [shares]
        bulk = 3
        high = 29
        [hierarchy]
        others = \"child\"
        [collections.'*']
        direction = \"upward\"
        [collections.notes]
        retention = \"2h\"
        deletion = \"tombstone\"
        [collections.tracks]
        delete = []
    ";
    let rules = Rules::parse(text).expect("valid");
    assert_eq!(rules.table.shares().of(Class::Bulk), 3);
    assert_eq!(rules.family.others, Kin::Child);
    let notes = rules.table.of_collection("notes");
    assert_eq!(notes.deletion, Deletion::Tombstone { retention: Duration::from_secs(7200) });
    assert_eq!(notes.direction, Direction::Upward, "rows start from the one for all others");
    let tracks = rules.table.of_collection("tracks");
    assert_eq!((tracks.deleters(), tracks.class), (Kins::NONE, Class::Normal));
    assert_eq!(Rules::parse(""), Ok(Rules::default()));
}

#[test]
fn what_means_nothing_is_named() {
    for (text, part) in [
        ("shares = 1", "`the file` has no `shares`"),
        ("[sharez]", "`the file` has no `sharez`"),
        ("[shares]\nlow = 1", "at least 2"),
        ("[shares]\nlow = 60", "at most 100"),
        ("[shares]\nurgent = 5", "`shares` has no `urgent`"),
        ("[hierarchy]\nparents = [\"me\"]", "a list of node ids"),
        ("[hierarchy]\nothers = \"aunt\"", "parent, child, sibling or none"),
        ("[collections]\ntracks = 1", "a table"),
        ("[collections.tracks]\nttl = \"soon\"", "`ttl` of `tracks` cannot be `soon`"),
        ("[collections.tracks]\nttl = 5", "`ttl` of `tracks` cannot be `5`"),
        ("[collections.tracks]\nclass = \"urgent\"", "critical, high"),
        ("[collections.beacons]\nretention = \"1h\"", "tombstone and soft only"),
        ("[collections.tracks]\nwrite = [\"me\"]", "a list of parent"),
        ("[collections.tracks]\ncolour = \"red\"", "`tracks` has no `colour`"),
        ("[collections", "not a policy file"),
    ] {
        let error = Rules::parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn times_are_whole_and_in_their_largest_unit() {
    for (text, seconds) in [("90s", 90), ("10m", 600), ("36h", 129_600), ("7d", 604_800), ("0s", 0)] {
        assert_eq!(time(text), Some(Duration::from_secs(seconds)));
    }
    for bad in ["", "s", "1.5h", "-1s", "10", "99999999999999999999d", "213503982334602d"] {
        assert_eq!(time(bad), None, "{bad}");
    }
    assert_eq!(text_of_time(Duration::from_secs(5400)), "90m");
}
