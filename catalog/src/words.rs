//! Text as both back-ends index it: words of letters and digits in lower case, with blanks between; characters of scripts
//! that put none between words (Chinese, Japanese, Korean) are words of their own. Because the same words go into both
//! indexes, a phrase finds the same entries in both, and a two-character word such as 失败 is found inside a sentence.

/// The words of `text`, one blank between.
pub(crate) fn spaced(text: &str) -> String {
    let mut words = String::with_capacity(text.len() + text.len() / 4);
    let mut inside = false;
    for character in text.chars() {
        if !character.is_alphanumeric() {
            inside = false;
            continue;
        }
        let alone = stands_alone(character);
        if (!inside || alone) && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase().filter(|c| c.is_alphanumeric()));
        inside = !alone;
    }
    words
}

fn stands_alone(character: char) -> bool {
    matches!(u32::from(character),
        0x3040..=0x30ff | 0x31f0..=0x31ff // kana
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff // Han
        | 0xac00..=0xd7a3) // Hangul
}

#[cfg(test)]
mod tests {
    use super::spaced;

    #[test]
    fn words_are_lower_case_and_chinese_characters_stand_alone() {
        assert_eq!(spaced("rsync: Connection refused (111)"), "rsync connection refused 111");
        assert_eq!(spaced("备份失败：磁盘sda1已满"), "备 份 失 败 磁 盘 sda1 已 满");
        assert_eq!(spaced("back_log/3306.xb"), "back log 3306 xb");
        assert_eq!(spaced(" -- "), "");
    }
}
