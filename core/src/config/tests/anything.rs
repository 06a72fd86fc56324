//! Any bytes, any text, any layers.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let case = Case::new(&[]);
        for name in ["x.toml", "x.conf"] {
            std::fs::write(case.path(name), &bytes).expect("written");
            let _ = case.load::<Host>(&HOST, name);
        }
    }

    #[test]
    fn no_text_like_a_configuration_makes_a_reader_panic(
        text in proptest::collection::vec(
            prop_oneof!["[a-z_.]{0,5}", Just("\n".to_owned()), Just(" = ".to_owned()), Just("[global]".to_owned()),
                Just("[instance.a]".to_owned()), Just("script".to_owned()), Just("server_id".to_owned()),
                Just("\"".to_owned()), Just(" # ".to_owned()), Just("中".to_owned()), Just("\r\n".to_owned()),
                Just("redis.password_file".to_owned()), Just("{".to_owned()), Just("]".to_owned())],
            0..40,
        ),
        variable in "[A-Z_]{0,12}",
        value in ".{0,12}",
    ) {
        let case = Case::new(&[]).variable(&format!("LONGSHORE__{variable}"), value);
        for name in ["x.toml", "x.conf"] {
            std::fs::write(case.path(name), text.concat()).expect("written");
            if let Ok(loaded) = case.load::<Host>(&HOST, name) {
                let _ = loaded.show(true);
            }
        }
    }

    #[test]
    fn the_latest_layer_that_speaks_is_heard(
        file in proptest::option::of(0u16..100), below in proptest::option::of(100u16..200),
        variable in proptest::option::of(200u16..300), flag in proptest::option::of(300u16..400),
    ) {
        let line = |value: Option<u16>| value.map_or(String::new(), |value| format!("slots = {value}\n"));
        let mut case = Case::new(&[("x.toml", &line(file)), ("conf.d/x.toml", &line(below))]);
        if let Some(value) = variable {
            case = case.variable("LONGSHORE__SLOTS", value.to_string());
        }
        if let Some(value) = flag {
            case = case.set(&format!("slots={value}"));
        }
        let expected = flag.or(variable).or(below).or(file).unwrap_or(4);
        prop_assert_eq!(case.load::<Node>(&NODE, "x.toml").expect("loaded").value.slots, expected);
    }
}
