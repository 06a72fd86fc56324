#![allow(clippy::unwrap_used)]
use super::*;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

#[test]
fn only_an_empty_folder_becomes_a_store_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    assert!(matches!(Store::open(&path, &node("1"), false), Err(StoreError::NoMarker(_))));
    let store = Store::open(&path, &node("1"), true).unwrap();
    assert!(matches!(Store::open(&path, &node("1"), true), Err(StoreError::InUse(_))));
    assert!(matches!(Store::look(&path, &node("2")), Err(StoreError::AnotherNode { .. })));
    store.still_there().unwrap();
    store.try_writing().unwrap();
    assert_eq!(fs::read_dir(path.join(INCOMING)).unwrap().count(), 0);
    fs::remove_file(path.join(MARKER)).unwrap();
    assert!(store.still_there().is_err());
    drop(store);
    assert!(matches!(Store::open(&path, &node("1"), true), Err(StoreError::NotAStore(_))), "it is not empty now");
    Store::init(&path, &node("1"), true).unwrap();
    Store::open(&path, &node("1"), false).unwrap();
}

#[test]
fn a_disk_of_fstab_that_is_away_is_noticed() {
    let fstab = "# disks\nUUID=1 / ext4 defaults 0 1\n/dev/sdb /backup ext4 defaults 0 2\n";
    let missing = |mounted| missing_mount(Path::new("/backup/store"), fstab, mounted);
    assert_eq!(missing("/dev/sda / ext4 rw 0 0\n"), Some("/backup".into()));
    assert_eq!(missing("/dev/sda / ext4 rw 0 0\n/dev/sdb /backup ext4 rw 0 0\n"), None);
    assert_eq!(missing_mount(Path::new("/srv/store"), fstab, "/dev/sda / ext4 rw 0 0\n"), None);
}

#[test]
fn publishing_refuses_to_replace() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &node("1"), true).unwrap();
    let place = RelativePath::new("mysql/1/3306/2026-11/x").unwrap();
    for name in ["a", "b"] {
        let folder = store.root().join(INCOMING).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("data"), name).unwrap();
        let published = store.publish(&folder, &place);
        assert_eq!(published.is_ok(), name == "a");
        assert!(published.err().is_none_or(|error| error.kind() == io::ErrorKind::AlreadyExists));
    }
    assert_eq!(fs::read(place.below(store.root()).join("data")).unwrap(), b"a");
}
