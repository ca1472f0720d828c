//! The closed table of codes: class, gRPC status, HTTP status, and what a person should do.
//!
//! Promises: retry is decided by [`Code::class`] and nowhere else; every code has a page in `docs/codes/`.
//! Never: grows a code that nothing can return.

use std::{fmt, str::FromStr};

/// Who can mend it, and so whether trying again helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Goes away by itself: try again with growing pauses.
    Transient,
    /// The caller sent something wrong: the same again fails again.
    Caller,
    /// A person has to change a setting, a right or data.
    Operator,
    /// A fault of the program.
    Bug,
}

/// The gRPC statuses in use, with their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum GrpcStatus {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

macro_rules! codes {
    ($($name:ident $text:literal $class:ident $grpc:ident $http:literal
        $en:literal
        $pt:literal;)+) => {
        /// A code; `GrpcStatus::Ok` marks business outcomes that travel in `errors[]` (`contracts.md` 5.5).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code { $($name,)+ }

        impl Code {
            /// All codes, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as it travels.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)+ } }

            #[must_use]
            pub const fn class(self) -> Class { match self { $(Self::$name => Class::$class,)+ } }

            #[must_use]
            pub const fn grpc(self) -> GrpcStatus { match self { $(Self::$name => GrpcStatus::$grpc,)+ } }

            #[must_use]
            pub const fn http(self) -> u16 { match self { $(Self::$name => $http,)+ } }

            /// What to do, in English.
            #[must_use]
            pub const fn hint(self) -> &'static str { match self { $(Self::$name => $en,)+ } }

            /// What to do, in Portuguese.
            #[must_use]
            pub const fn hint_pt(self) -> &'static str { match self { $(Self::$name => $pt,)+ } }
        }
    };
}

codes! {
    AddressInUse "ADDRESS_IN_USE" Operator Unavailable 503
        "Another program listens there. Stop it or choose another port."
        "Outro programa usa essa porta. Encerre-o ou escolha outra porta.";
    AddressRefused "ADDRESS_REFUSED" Operator PermissionDenied 403
        "Plain http and private addresses need allow_private = true; hosts beside the registry's go into cloud.hosts of the agent."
        "http simples e endereços privados exigem allow_private = true; hosts além do registry vão em cloud.hosts do agente.";
    AgentAway "AGENT_AWAY" Operator Unavailable 503
        "No agent answers at this data folder. Start it by malote agent run --config FILE, or give this command the FILE it runs with."
        "Nenhum agente responde nesta pasta de dados. Inicie-o com malote agent run --config ARQUIVO, ou dê a este comando o ARQUIVO com que ele roda.";
    AlreadyExists "ALREADY_EXISTS" Caller AlreadyExists 409
        "Choose another name, or use the one that is there."
        "Escolha outro nome, ou use o que já existe.";
    BackupInvalid "BACKUP_INVALID" Operator FailedPrecondition 409
        "The backup is not whole, or not one of these. Take another one; nothing was put into place."
        "O backup não está inteiro, ou não é deste tipo. Use outro; nada foi colocado no lugar.";
    BadId "BAD_ID" Caller InvalidArgument 400
        "Copy the id as the list command shows it."
        "Copie o id como o comando list o mostra.";
    BadName "BAD_NAME" Caller InvalidArgument 400
        "Use a name of 1 to 128 bytes without control characters."
        "Use um nome de 1 a 128 bytes sem caracteres de controle.";
    BadRequest "BAD_REQUEST" Caller InvalidArgument 400
        "Mend what the message names and try again."
        "Corrija o que a mensagem indica e tente de novo.";
    BatchClosed "BATCH_CLOSED" Caller Ok 200
        "The batch takes no new messages. Open a new one."
        "O pacote não aceita novas mensagens. Abra um novo.";
    BatchUnknown "BATCH_UNKNOWN" Caller Ok 200
        "A batch starts with message 1 and an id above the last one."
        "Um pacote começa com a mensagem 1 e um id acima do último.";
    BodyRemoved "BODY_REMOVED" Caller NotFound 410
        "Retention removed the message's body; what it brought is in the staging table. Order a reload to have the rows sent again."
        "A retenção removeu o conteúdo da mensagem; o que ela trouxe está na staging table. Ordene uma recarga para receber as linhas de novo.";
    BodyTooLarge "BODY_TOO_LARGE" Caller ResourceExhausted 413
        "Send less in one call."
        "Envie menos em uma chamada.";
    BoundDegraded "BOUND_DEGRADED" Operator Ok 200
        "The login does not see other sessions, so a window of overlap is used. Install malote.safe_bound() (malote agent safe-bound prints it) or grant pg_read_all_stats."
        "O login não vê as outras sessões, por isso usa-se uma janela de sobreposição. Instale malote.safe_bound() (malote agent safe-bound a imprime) ou conceda pg_read_all_stats.";
    ClockAhead "CLOCK_AHEAD" Caller Ok 200
        "The batch id is more than a day ahead of the server. Mend the clock; use last id + 1."
        "O id do pacote está mais de um dia à frente do servidor. Acerte o relógio; use o último id + 1.";
    CloudSetBack "CLOUD_SET_BACK" Transient Ok 200
        "The server came back from an older copy. What it lacks is read again from the ERP by itself; look whether what was set up since the copy is there."
        "O servidor voltou de uma cópia mais antiga. O que falta é lido de novo do ERP automaticamente; veja se está lá o que foi cadastrado depois da cópia.";
    CloudUnreachable "CLOUD_UNREACHABLE" Transient Unavailable 503
        "No usable answer came from the server. Check address and port, and whether it runs; then DNS, proxy and firewall."
        "O servidor não deu uma resposta útil. Confira endereço e porta, e se ele está no ar; depois DNS, proxy e firewall.";
    ColumnClash "COLUMN_CLASH" Operator InvalidArgument 400
        "Two columns differ in case alone, or one is named like a column of Malote's. Rename it, or share the table through a view."
        "Duas colunas diferem só em maiúsculas, ou uma tem nome reservado do Malote. Renomeie, ou compartilhe a tabela por uma view.";
    ConfigInvalid "CONFIG_INVALID" Operator FailedPrecondition 500
        "Mend what the message names. Once the file reads, --dump-config of malote agent run and malote server run shows what is in force."
        "Corrija o que a mensagem indica. Quando o arquivo for legível, --dump-config de malote agent run e malote server run mostra o que vale.";
    DatabaseChanged "DATABASE_CHANGED" Operator FailedPrecondition 409
        "The ERP database is another one than before, or was set back in time. Confirm with: malote server session accept."
        "O banco do ERP é outro, ou voltou no tempo. Confirme com: malote server session accept.";
    DeletesCapped "DELETES_CAPPED" Operator FailedPrecondition 409
        "More rows vanished than the cap allows. If they were deleted on purpose: malote agent deletes confirm TABLE."
        "Sumiram mais linhas que o limite. Se a exclusão foi intencional: malote agent deletes confirm TABELA.";
    DifferencesFound "DIFFERENCES_FOUND" Operator FailedPrecondition 409
        "What is staged differs from the ERP. malote verify TABLE --repair sends again what differs; look for what caused it."
        "O que está na staging difere do ERP. malote verify TABELA --repair envia de novo o que difere; procure a causa.";
    DiskFull "DISK_FULL" Operator ResourceExhausted 507
        "Make room on the disk; nothing acknowledged was lost, work goes on by itself."
        "Libere espaço em disco; nada confirmado se perdeu e o trabalho continua sozinho.";
    Draining "DRAINING" Transient Unavailable 503
        "The server is stopping. Send the same bytes to the next one."
        "O servidor está parando. Envie os mesmos bytes ao próximo.";
    EntitiesInvalid "ENTITIES_INVALID" Operator FailedPrecondition 502
        "The answer of Entities is not valid; the last good plan stays in force."
        "A resposta de Entities é inválida; o último plano bom continua valendo.";
    EpochRequired "EPOCH_REQUIRED" Caller FailedPrecondition 409
        "A session is live: send its epoch in x-sender-epoch, or wait until the lease ends."
        "Há uma sessão ativa: envie a época em x-sender-epoch ou espere o fim da concessão.";
    Fenced "FENCED" Transient FailedPrecondition 409
        "A newer session sends this stream. The sender stands by and opens a session when the other ends."
        "Uma sessão mais nova envia este fluxo. O remetente aguarda e abre uma sessão quando a outra terminar.";
    FilterRefused "FILTER_REFUSED" Operator InvalidArgument 400
        "A filter may compare this table's columns with literals (= <> < <= > >= BETWEEN IN LIKE IS NULL AND OR NOT) and nothing else."
        "Um filtro só pode comparar colunas desta tabela com literais (= <> < <= > >= BETWEEN IN LIKE IS NULL AND OR NOT).";
    InstanceTwice "INSTANCE_TWICE" Operator FailedPrecondition 409
        "Two agents run from copies of one data folder. Stop one and remove its journal; the lease lapses after 30 s."
        "Dois agentes rodam com cópias da mesma pasta de dados. Pare um e remova o seu diário; a concessão vence em 30 s.";
    Internal "INTERNAL" Bug Internal 500
        "A fault of Malote's. Keep the log and report it."
        "Uma falha do Malote. Guarde o log e comunique.";
    InvalidArgument "INVALID_ARGUMENT" Caller InvalidArgument 400
        "Mend the message: the words name the field that is wrong."
        "Corrija a mensagem: o texto diz qual campo está errado.";
    InvalidClient "INVALID_CLIENT" Operator Unauthenticated 400
        "Client id or secret is wrong or was revoked. Make new credentials: malote server credential create."
        "Client id ou secret errado ou revogado. Gere novas credenciais: malote server credential create.";
    InvalidScope "INVALID_SCOPE" Caller InvalidArgument 400
        "The only scope is authorization_api."
        "O único scope é authorization_api.";
    JournalCorrupt "JOURNAL_CORRUPT" Transient DataLoss 500
        "The journal is damaged. Rows are read again from the ERP by themselves."
        "O diário está danificado. As linhas são lidas de novo do ERP automaticamente.";
    JournalFailed "JOURNAL_FAILED" Transient Unavailable 503
        "The agent's journal could not write or read. Look at disk space and rights of the data folder."
        "O diário do agente não conseguiu gravar ou ler. Veja espaço em disco e permissões da pasta de dados.";
    KeyIsNull "KEY_IS_NULL" Operator FailedPrecondition 409
        "A key column is NULL in a row. Declare a key without NULLs."
        "Uma coluna da chave é NULL em uma linha. Declare uma chave sem NULLs.";
    KeyNotUnique "KEY_NOT_UNIQUE" Operator FailedPrecondition 409
        "Two rows share the declared key. Declare the columns that are unique together."
        "Duas linhas têm a mesma chave declarada. Declare as colunas que juntas são únicas.";
    KeyUnfit "KEY_UNFIT" Operator FailedPrecondition 409
        "A key holds a value that cannot be read as text, so the rows behind it cannot be found. Mend it in the ERP, or declare other columns as the key; the table waits."
        "Uma chave contém um valor que não pode ser lido como texto, por isso as linhas depois dela não podem ser achadas. Corrija no ERP ou declare outras colunas como chave; a tabela espera.";
    MailUnsent "MAIL_UNSENT" Operator Unavailable 503
        "Look at the reason: mend the mail server's address, login or certificate, then order another test."
        "Veja o motivo: corrija o endereço, o login ou o certificado do servidor de e-mail e peça outro teste.";
    MaskUnfit "MASK_UNFIT" Operator FailedPrecondition 409
        "A column that names, orders or dates its rows cannot be masked or left out. Take it out of mask, exclude or columns."
        "Uma coluna que identifica, ordena ou data as linhas não pode ser mascarada nem omitida. Retire-a de mask, exclude ou columns.";
    MessagesMissing "MESSAGES_MISSING" Transient Ok 200
        "Send the messages named in the answer, then the summary again."
        "Envie as mensagens indicadas na resposta e depois o sumário de novo.";
    MessageConflict "MESSAGE_CONFLICT" Caller Ok 200
        "The number is taken by other content. Drop the batch and read again from the cursor."
        "O número já pertence a outro conteúdo. Descarte o pacote e leia de novo a partir do cursor.";
    MessageTooLarge "MESSAGE_TOO_LARGE" Caller ResourceExhausted 413
        "Split the message: at most 5 MB encoded, 10,000 rows, 200,000 cells."
        "Divida a mensagem: no máximo 5 MB codificados, 10.000 linhas, 200.000 células.";
    MethodNotAllowed "METHOD_NOT_ALLOWED" Caller Unimplemented 405
        "Use the method the documentation names."
        "Use o método indicado na documentação.";
    MissingKeyColumn "MISSING_KEY_COLUMN" Operator Ok 200
        "Every row needs a value in each key column. Mend the key in the agent's configuration."
        "Toda linha precisa de valor em cada coluna da chave. Corrija a chave na configuração do agente.";
    NameReserved "NAME_RESERVED" Caller InvalidArgument 400
        "The name belongs to Malote's own relations or to its database. Share the table through a view of another name."
        "O nome pertence às relações do próprio Malote ou ao seu banco. Compartilhe a tabela por uma view com outro nome.";
    NotFound "NOT_FOUND" Caller NotFound 404
        "Check the name or id; list commands show what exists."
        "Confira o nome ou id; os comandos list mostram o que existe.";
    NotVerified "NOT_VERIFIED" Operator FailedPrecondition 409
        "The last verification by the timetable came to no end. Mend what the words name; malote verify TABLE tells at once whether it comes to an end."
        "A última verificação pelo horário não chegou ao fim. Corrija o que o texto indica; malote verify TABELA mostra na hora se ela chega ao fim.";
    OrderSent "ORDER_SENT" Caller FailedPrecondition 409
        "An agent has the order already, so it cannot be withdrawn. Order what undoes it, such as resume after pause."
        "Um agente já tem a ordem, por isso ela não pode ser retirada. Ordene o que a desfaz, como resume depois de pause.";
    PermissionDenied "PERMISSION_DENIED" Operator PermissionDenied 403
        "Of a sender, check the credential's binding, its ERP and the entity list of that ERP; of an administrator, the token's role and tenant."
        "De um remetente, confira o vínculo da credencial, o ERP e a lista de entidades desse ERP; de um administrador, o papel e o tenant do token.";
    PrimaryKeyChanged "PRIMARY_KEY_CHANGED" Operator Ok 200
        "The key differs from the staging table's. If the new key is right, order a reload that rebuilds the table: malote server reload TABLE --rebuild."
        "A chave difere da chave da tabela staging. Se a nova estiver certa, ordene uma recarga que refaz a tabela: malote server reload TABELA --rebuild.";
    RateLimited "RATE_LIMITED" Transient ResourceExhausted 429
        "Wait the time given and send the same bytes again."
        "Espere o tempo indicado e envie os mesmos bytes de novo.";
    RecordCountMismatch "RECORD_COUNT_MISMATCH" Caller Ok 200
        "recordCount must equal the number of rows in the message."
        "recordCount deve ser igual ao número de linhas da mensagem.";
    RegistryInvalid "REGISTRY_INVALID" Operator FailedPrecondition 502
        "The registry's answer lacks a service or is not valid. Check the registry address."
        "A resposta do registry não tem um serviço ou é inválida. Confira o endereço do registry.";
    RestoreUnfinished "RESTORE_UNFINISHED" Operator FailedPrecondition 409
        "A restore was cut off. Run the restore command once more without options beside --config: it goes on where it was."
        "Uma restauração foi interrompida. Execute o comando restore mais uma vez, só com --config: ele continua de onde parou.";
    RowTooLarge "ROW_TOO_LARGE" Operator ResourceExhausted 413
        "One row is larger than a message may be and is quarantined. Exclude its large column or shrink it."
        "Uma linha é maior que uma mensagem e está em quarentena. Exclua a coluna grande ou reduza-a.";
    SchemaChanged "SCHEMA_CHANGED" Transient Aborted 409
        "The table changed while it was read; it is described again and read again."
        "A tabela mudou durante a leitura; ela é descrita e lida de novo.";
    SequenceGap "SEQUENCE_GAP" Transient Ok 200
        "Send again from the number named in the answer."
        "Envie de novo a partir do número indicado na resposta.";
    SessionHeld "SESSION_HELD" Transient FailedPrecondition 409
        "Another agent sends this stream; this one stands by."
        "Outro agente envia este fluxo; este fica em espera.";
    SourceFailed "SOURCE_FAILED" Transient Unavailable 503
        "The database reported an error; the log has its words."
        "O banco relatou um erro; o log tem o texto.";
    SourceFile "SOURCE_FILE" Transient Unavailable 503
        "The file of the ERP database is missing or is no SQLite database. Mend the path in source.url; a relative one begins at the folder the agent was started in."
        "O arquivo do banco do ERP não existe ou não é um banco SQLite. Corrija o caminho em source.url; um caminho relativo parte da pasta em que o agente foi iniciado.";
    SourceLogin "SOURCE_LOGIN" Operator Unauthenticated 401
        "The database refused the login. Check user, password and database name."
        "O banco recusou o login. Confira usuário, senha e nome do banco.";
    SourceRights "SOURCE_RIGHTS" Operator PermissionDenied 403
        "The login may not read this. Grant SELECT on it, nothing more."
        "O login não pode ler isto. Conceda SELECT, nada além.";
    SourceStandby "SOURCE_STANDBY" Operator FailedPrecondition 409
        "The database is a standby. Point the agent at the primary."
        "O banco é uma réplica. Aponte o agente para o primário.";
    SourceTimeout "SOURCE_TIMEOUT" Transient DeadlineExceeded 504
        "The database took longer than allowed. Check locks and the index on the stamp column."
        "O banco demorou mais que o permitido. Confira bloqueios e o índice da coluna de controle.";
    SourceTls "SOURCE_TLS" Operator Unavailable 503
        "The database takes no encrypted connection, or its certificate is not trusted. Name its authority in source.ca_file; only inside a network you trust write ?sslmode=disable into source.url."
        "O banco não aceita conexão cifrada, ou o seu certificado não é confiável. Indique a autoridade em source.ca_file; só em rede confiável escreva ?sslmode=disable em source.url.";
    SourceUnreachable "SOURCE_UNREACHABLE" Transient Unavailable 503
        "The ERP database does not answer. Check address, port, network and that it runs."
        "O banco do ERP não responde. Confira endereço, porta, rede e se ele está no ar.";
    SourceUnsupported "SOURCE_UNSUPPORTED" Operator Unimplemented 501
        "Supported are postgres://… and sqlite:…; README has a table of what ran against what."
        "São suportados postgres://… e sqlite:…; o README tem uma tabela do que rodou com o quê.";
    StampUnfit "STAMP_UNFIT" Operator FailedPrecondition 409
        "The declared stamp column is missing or of a type that cannot order changes. Declare another, or none."
        "A coluna de controle declarada não existe ou é de tipo que não ordena mudanças. Declare outra, ou nenhuma.";
    StillUsed "STILL_USED" Caller FailedPrecondition 409
        "Something hangs on it still; the words name what. Remove or unbind that first."
        "Algo ainda depende disso; o texto diz o quê. Remova ou desvincule isso antes.";
    StoreBusy "STORE_BUSY" Operator Unavailable 503
        "Another process holds the data folder. One process at a time may use it."
        "Outro processo usa a pasta de dados. Só um processo por vez.";
    StoreFailed "STORE_FAILED" Transient Unavailable 503
        "The store could not write or read. Look at disk space and the log; where it is a database, at that and the way to it."
        "O armazenamento não conseguiu gravar ou ler. Veja o espaço em disco e o log; se for um banco, veja o banco e a rede até ele.";
    StoreVersion "STORE_VERSION" Operator FailedPrecondition 500
        "The store belongs to another version. Run malote server migrate, or start the newer program."
        "O armazenamento é de outra versão. Rode malote server migrate, ou use o programa mais novo.";
    SummaryMismatch "SUMMARY_MISMATCH" Caller Ok 200
        "The summary's counts differ from what is stored. Send the summary once more with the right counts."
        "Os totais do sumário diferem do que está gravado. Envie o sumário de novo com os totais certos.";
    TableMissing "TABLE_MISSING" Operator NotFound 404
        "The table is not in the ERP database, or the login may not see it. Check the name, schema and company group."
        "A tabela não está no banco do ERP, ou o login não a enxerga. Confira nome, schema e grupo de empresas.";
    TableNotAllowed "TABLE_NOT_ALLOWED" Operator PermissionDenied 403
        "The agent's own allow list does not hold this table. Add it in agent.toml if it may be shared."
        "A lista local do agente não contém esta tabela. Inclua no agent.toml se ela puder ser compartilhada.";
    TableNotReady "TABLE_NOT_READY" Operator FailedPrecondition 409
        "The table is paused or is being loaded. Try again once malote agent status shows it STREAMING."
        "A tabela está pausada ou em carga. Tente de novo quando malote agent status a mostrar como STREAMING.";
    TableWithoutKey "TABLE_WITHOUT_KEY" Operator FailedPrecondition 409
        "No primary key in the catalogue. Declare the columns that are unique together: key = [\"…\"] below the table's own heading, such as [tables.FLAN]."
        "Sem chave primária no catálogo. Declare as colunas que juntas são únicas: key = [\"…\"] sob o título da própria tabela, como [tables.FLAN].";
    Timeout "TIMEOUT" Transient DeadlineExceeded 504
        "The outcome is unknown: send the same bytes again."
        "O resultado é desconhecido: envie os mesmos bytes de novo.";
    Unauthenticated "UNAUTHENTICATED" Caller Unauthenticated 401
        "A sender asks for a new token with client id and secret and repeats the call; an administrator's token is made by malote server admin token create."
        "Um remetente pede um novo token com client id e secret e repete a chamada; o token de um administrador é criado por malote server admin token create.";
    Unavailable "UNAVAILABLE" Transient Unavailable 503
        "Send the same bytes again with growing pauses; if it lasts, look at the server's log."
        "Envie os mesmos bytes de novo com pausas crescentes; se persistir, veja o log do servidor.";
    UnsupportedGrantType "UNSUPPORTED_GRANT_TYPE" Caller InvalidArgument 400
        "The only grant type is client_credentials."
        "O único grant_type é client_credentials.";
    UploadVersion "UPLOAD_VERSION" Operator FailedPrecondition 409
        "The server asks for another way of sending than this agent has."
        "O servidor pede outra forma de envio, que este agente não tem.";
    ValueUnfit "VALUE_UNFIT" Operator InvalidArgument 422
        "The value cannot travel without change, so its row is quarantined. Mend it in the ERP."
        "O valor não pode viajar sem alteração, por isso a linha está em quarentena. Corrija no ERP.";
    VerbUnsupported "VERB_UNSUPPORTED" Operator Unimplemented 501
        "The agent does not know this order. Update it, or do on its machine what was ordered."
        "O agente não conhece esta ordem. Atualize-o, ou faça na máquina dele o que foi ordenado.";
    VersionUnsupported "VERSION_UNSUPPORTED" Operator FailedPrecondition 409
        "Agent and server do not speak the same protocol version. Update the older one."
        "Agente e servidor não falam a mesma versão do protocolo. Atualize o mais antigo.";
    WebhookUntold "WEBHOOK_UNTOLD" Operator Unavailable 503
        "Look at the delivery's reason: mend the consumer or its address, then order another test."
        "Veja o motivo na entrega: corrija o consumidor ou o endereço dele e peça outro teste.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a code at the head of a message, `CODE: words`, or alone.
impl FromStr for Code {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let head = text.split(':').next().unwrap_or(text).trim();
        Self::ALL.iter().copied().find(|code| code.as_str() == head).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_upper_snake_sorted_and_read_back() {
        let texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.is_sorted());
        for code in Code::ALL {
            let text = code.as_str();
            assert!(text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{text}");
            assert_eq!(format!("{text}: words").parse(), Ok(*code));
            assert!(!code.hint().is_empty() && !code.hint_pt().is_empty(), "{text}");
        }
        assert_eq!("NOPE: x".parse::<Code>(), Err(()));
    }
}
