//! What a base backup is asked for, in the words of each major.

use std::fmt::Write;
use std::time::Duration;

/// How a base backup is taken.
///
/// Always asked for: no log in the archives (it is streamed), no waiting for the archiver, a manifest with SHA-256,
/// a tablespace map in place of links, and the server's own check of pages: on a wrong checksum it reads the page
/// again, so that a page caught in the middle of a write is not taken for a damaged one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// What the backup is called in `backup_label` and in the server's log.
    pub label: String,
    /// Checkpoint at once, instead of spreading it over minutes.
    pub fast_checkpoint: bool,
    /// Bound on what the server sends, in KiB a second; it takes 32 to 1 048 576.
    pub max_rate_kib: Option<u32>,
    /// Have the server count its size first, and say how far it is.
    pub progress: bool,
    /// Longest wait for the first answer: a spread checkpoint takes minutes.
    pub start_timeout: Duration,
    /// Longest silence once the copy runs.
    pub stall_timeout: Duration,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            label: "farshore".to_owned(),
            fast_checkpoint: true,
            max_rate_kib: None,
            progress: true,
            // Twice the longest checkpoint_timeout in common use.
            start_timeout: Duration::from_secs(3600),
            // A disk under load may stall for a while; nothing is sent meanwhile, not even a sign of life.
            stall_timeout: Duration::from_secs(300),
        }
    }
}

impl BackupOptions {
    /// The command. 14 has its own grammar. A control character of the label becomes a space, as the label is a line of
    /// a file.
    ///
    /// Source: the manual of 14 and of 15, BASE_BACKUP.
    pub(super) fn command(&self, major: u32) -> String {
        let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
        let label: String = self.label.chars().map(clean).collect::<String>().replace('\'', "''");
        let mut command = String::new();
        // Writing to a String does not fail.
        let _ = if major <= 14 {
            write!(
                command,
                "BASE_BACKUP LABEL '{label}'{}{} NOWAIT{} TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'SHA256'",
                if self.progress { " PROGRESS" } else { "" },
                if self.fast_checkpoint { " FAST" } else { "" },
                self.max_rate_kib.map(|rate| format!(" MAX_RATE {rate}")).unwrap_or_default(),
            )
        } else {
            write!(
                command,
                "BASE_BACKUP (LABEL '{label}', PROGRESS {}, CHECKPOINT '{}', WAIT false{}, TABLESPACE_MAP true, \
                 MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256')",
                self.progress,
                if self.fast_checkpoint { "fast" } else { "spread" },
                self.max_rate_kib.map(|rate| format!(", MAX_RATE {rate}")).unwrap_or_default(),
            )
        };
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        let options = BackupOptions { label: "a', x\nb".to_owned(), ..BackupOptions::default() };
        for major in [14, 15] {
            assert!(options.command(major).contains("LABEL 'a'', x b'"), "{}", options.command(major));
        }
    }

    #[test]
    fn each_major_is_asked_in_its_own_grammar() {
        let options = BackupOptions { max_rate_kib: Some(64), ..BackupOptions::default() };
        assert!(
            options.command(14).starts_with("BASE_BACKUP LABEL 'farshore' PROGRESS FAST NOWAIT MAX_RATE 64")
        );
        assert!(options.command(18).contains("CHECKPOINT 'fast', WAIT false, MAX_RATE 64"));
    }
}
