//! Server: what `malote server` says of itself.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "--tenant, --environment and --erp may be left out where there is one."
    "--tenant, --environment e --erp podem ser omitidos onde só houver um.";
    "A tenant's connector, without its token"
    "O connector de um tenant, sem o token";
    "ADMINISTRATOR"
    "ADMINISTRADOR";
    "APP"
    "APLICATIVO";
    "Address that ends in /api"
    "Endereço que termina em /api";
    "Administrator, by id or name"
    "Administrador, por id ou nome";
    "Administrators, revoked ones among them"
    "Administradores, inclusive os revogados";
    "All tenants"
    "Todos os tenants";
    "Also those that were withdrawn"
    "Também as que foram retiradas";
    "App, by id or name"
    "Aplicativo, por id ou nome";
    "Apps of a tenant"
    "Aplicativos de um tenant";
    "Ask for a table to be sent again whole"
    "Pede que uma tabela seja enviada inteira de novo";
    "At most this many"
    "No máximo esta quantidade";
    "BATCH"
    "PACOTE";
    "Batches and their messages"
    "Pacotes e suas mensagens";
    "Batches, the newest first"
    "Pacotes, do mais novo ao mais antigo";
    "Bring the store to this program's schema; stop the server first"
    "Atualiza o armazenamento para o schema deste programa; pare o servidor antes";
    "By id or name"
    "Por id ou nome";
    "CLIENT"
    "CLIENT_ID";
    "CODE"
    "CÓDIGO";
    "Change an app's name or what it is for; what is left out stays"
    "Muda o nome de um aplicativo ou para que serve; o que for omitido fica como está";
    "Check that no entry was changed or taken out"
    "Confere se nenhum registro foi alterado ou retirado";
    "Client id"
    "O client id da credencial";
    "Client ids and secrets"
    "Client ids e secrets (credenciais)";
    "Clients of a tenant, revoked ones among them; never a secret"
    "Credenciais de um tenant, inclusive as revogadas; nunca um secret";
    "Columns and key of a table"
    "Colunas e chave de uma tabela";
    "Configuration file (server.toml); each key also as MALOTE_SERVER_… in the environment"
    "Arquivo de configuração (server.toml); cada chave vale também como MALOTE_SERVER_… no ambiente do sistema";
    "Connector id"
    "Id do connector";
    "Customers"
    "Clientes (tenants)";
    "DESCRIPTION"
    "DESCRIÇÃO";
    "Data folder; wins over the configuration"
    "Pasta de dados; prevalece sobre a configuração";
    "ENVIRONMENT"
    "AMBIENTE";
    "ERP set-ups and their tie to an environment"
    "Instalações do ERP e o seu vínculo com um ambiente";
    "End an administrator with all its tokens, at once and for ever"
    "Revoga um administrador com todos os seus tokens, de imediato e para sempre";
    "End the session at once; its sender reads again from the cursor"
    "Encerra a sessão de imediato; o remetente lê de novo a partir do cursor";
    "Environment to bind it to"
    "Ambiente ao qual será vinculada";
    "Environment, by id or name"
    "Ambiente, por id ou nome";
    "Environment, by id or name; may be left out where there is one"
    "Ambiente, por id ou nome; pode ser omitido se só houver um";
    "Environments of a tenant"
    "Lista os ambientes de um tenant";
    "Every row"
    "Todas as linhas";
    "Every row of a table"
    "Todas as linhas de uma tabela";
    "Every shared table"
    "Todas as tabelas compartilhadas";
    "Example:"
    "Exemplo:";
    "FILTER"
    "FILTRO";
    "FINGERPRINT"
    "DIGITAL";
    "Fingerprint of that database, as the list shows it"
    "Impressão digital desse banco, como a lista mostra";
    "Give a row up: it leaves quarantine unstaged, the audit keeps why"
    "Descarta uma linha: ela sai da quarentena sem entrar na staging, e a auditoria guarda o motivo";
    "Give a tenant another name; its id stays"
    "Dá outro nome a um tenant; o id permanece";
    "Give an environment another name; its id stays"
    "Dá outro nome a um ambiente; o id permanece";
    "Give an installation another name; its id stays"
    "Dá outro nome a uma instalação; o id permanece";
    "Go on behind this key (in hex, as the page before tells it)"
    "Continua depois desta chave (em hexadecimal, como a página anterior informa)";
    "Go on behind this one (the first column of the last line)"
    "Continua depois deste (a primeira coluna da última linha)";
    "Go on behind this row (the first column of the last line)"
    "Continua depois desta linha (a primeira coluna da última linha)";
    "Go on below this number (the first column of the last line)"
    "Continua abaixo deste número (a primeira coluna da última linha)";
    "ID|NAME"
    "ID|NOME";
    "INSTALLATION"
    "INSTALAÇÃO";
    "Installation, by id or name"
    "Instalação, por id ou nome";
    "Installation, by id or name; the only one where neither is named"
    "Instalação, por id ou nome; sem ela e sem --app, a única que houver";
    "Installations of a tenant, and where each is bound"
    "Instalações de um tenant e o vínculo de cada uma";
    "Its name"
    "O nome";
    "Its new name"
    "O novo nome";
    "KEY"
    "CHAVE";
    "KIND"
    "TIPO";
    "Keep an app's clients out until it is activated again"
    "Recusa as credenciais de um aplicativo até que seja ativado de novo";
    "Keys that sign senders' tokens"
    "Chaves que assinam os tokens dos remetentes";
    "Keys that sign tokens or did, the newest first"
    "Chaves que assinam tokens ou já assinaram, as mais novas primeiro";
    "LAST"
    "ÚLTIMO";
    "Let a role of the database read the staged tables, and nothing else"
    "Deixa um papel do banco de dados ler as tabelas na staging, e nada mais";
    "Let an app's clients in again"
    "Volta a aceitar as credenciais de um aplicativo";
    "Let this role of the database work as the server; to be run as the role that owns the database"
    "Deixa este papel do banco de dados trabalhar como servidor; execute como o papel que é dono do banco";
    "Live rows of a table, in the order of their key's bytes"
    "Linhas vivas de uma tabela, na ordem dos bytes da chave";
    "Make a client id and secret; the secret is shown now and never again"
    "Cria client id e secret; o secret é mostrado agora e nunca mais";
    "Make a key that signs from now on; a running server follows within 30 seconds"
    "Cria uma chave que assina a partir de agora; um servidor em execução a adota em até 30 segundos";
    "Make a second client for the holder of one; both are in force until one is revoked"
    "Cria uma segunda credencial para o mesmo titular; as duas valem até que uma seja revogada";
    "Make a tenant"
    "Cria um tenant";
    "Make a token; it is shown now and never again"
    "Cria um token; ele é mostrado agora e nunca mais";
    "Make an administrator; a token lets it in"
    "Cria um administrador; ele entra com um token";
    "Make an app; it is active"
    "Cria um aplicativo, já ativo";
    "Make an environment"
    "Cria um ambiente";
    "Make an installation, bound where an environment is named"
    "Cria uma instalação, vinculada se um ambiente for indicado";
    "Make tenant, environment, installation, tables and credentials in one go; what is there is used"
    "Cria tenant, ambiente, instalação, tabelas e credencial de uma vez; o que já existe é aproveitado";
    "Messages of a batch"
    "Mensagens de um pacote";
    "Name of the environment"
    "Nome do ambiente";
    "Name of the installation; the ERP's where it is left out"
    "Nome da instalação; se omitido, o do ERP";
    "Name of the tenant"
    "Nome do tenant";
    "Number of live rows"
    "Número de linhas vivas";
    "ORGANIZATION"
    "ORGANIZAÇÃO";
    "One JSON object a line on stdout"
    "Um objeto JSON por linha em stdout";
    "One row with its columns as they came"
    "Uma linha com as colunas como chegaram";
    "Only rows of this table"
    "Só as linhas desta tabela";
    "Only rows refused with this code"
    "Só as linhas recusadas com este código";
    "Only tell whether it waits"
    "Só diz se está à espera";
    "Only those that are open, stalled, incomplete or complete"
    "Só os que estão open (abertos), stalled (parados), incomplete (incompletos) ou complete (completos)";
    "Only what concerns this tenant, by id or name"
    "Só o que diz respeito a este tenant, por id ou nome";
    "Only what holds this in its name"
    "Só o que tem isto no nome";
    "Only where who, action or target hold this"
    "Só onde autor, ação ou alvo têm isto";
    "Organization at Carol"
    "Organização na Carol";
    "PART"
    "PARTE";
    "Predicate for the base load of each of them, such as \"FLAN.IDLAN > 1000\""
    "Filtro da carga inicial de cada uma delas, como \"FLAN.IDLAN > 1000\"";
    "Print the configuration in force"
    "Mostra a configuração em vigor";
    "Print the configuration in force and end"
    "Mostra a configuração em vigor e termina";
    "Print the defaults instead, as a file to begin with"
    "Mostra a configuração padrão, como arquivo para começar";
    "Products of the platform that a tenant has"
    "Produtos da plataforma que um tenant tem (aplicativos)";
    "REASON"
    "MOTIVO";
    "RM, PROTHEUS, DATASUL, LOGIX or another"
    "RM, PROTHEUS, DATASUL, LOGIX ou outro";
    "RM, PROTHEUS, DATASUL, LOGIX or another; may be left out where the environment has one"
    "RM, PROTHEUS, DATASUL, LOGIX ou outro; pode ser omitido se o ambiente só tiver um";
    "ROW"
    "LINHA";
    "Refuse every token of before"
    "Recusa todos os tokens anteriores";
    "Remove a tenant that has nothing"
    "Remove um tenant que não tem nada";
    "Remove an app without credentials in force"
    "Remove um aplicativo sem credenciais em vigor";
    "Remove an environment to which nothing is bound, and for which no table was ever shared"
    "Remove um ambiente sem vínculos e para o qual nunca se compartilhou uma tabela";
    "Remove an installation that is not bound and has no credential in force"
    "Remove uma instalação sem vínculo e sem credencial em vigor";
    "Remove now what the configuration keeps no longer; a running server does so every hour by itself"
    "Remove agora o que a configuração já não guarda; um servidor em execução faz isso sozinho a cada hora";
    "Remove what is past the days it is kept"
    "Remove o que passou dos dias de retenção";
    "Revoke a client for ever; it is refused within 60 s"
    "Revoga uma credencial para sempre; ela é recusada em até 60 s";
    "Revoke a token at once and for ever"
    "Revoga um token, de imediato e para sempre";
    "Roles of the database that read the staged tables"
    "Papéis do banco de dados que leem as tabelas na staging";
    "Roles that read the staged tables, and the schema these stand in"
    "Papéis que leem as tabelas na staging, e o schema em que elas estão";
    "Rows in quarantine, the newest batch first; `show` tells their values"
    "Linhas em quarentena, do pacote mais novo ao mais antigo; `show` mostra os seus valores";
    "Rows of a message as they were sent, while its body is kept"
    "Linhas de uma mensagem como foram enviadas, enquanto o conteúdo dela está guardado";
    "Rows that could not be staged, with the reason"
    "Linhas que não puderam entrar na staging, com o motivo";
    "Rows that could not be staged: look, try again, give up"
    "Linhas que não puderam entrar na staging: ver, tentar de novo, descartar";
    "Run it again with further tables to share them as well. Each run makes a further credential; `malote server credential revoke CLIENT` ends an older one."
    "Execute de novo com outras tabelas para compartilhá-las também. Cada execução cria mais uma credencial; `malote server credential revoke CLIENT_ID` encerra uma anterior.";
    "Run the server until SIGTERM or Ctrl-C"
    "Executa o servidor até SIGTERM ou Ctrl-C";
    "STATE"
    "ESTADO";
    "Senders then fetch new tokens by themselves."
    "Os remetentes buscam novos tokens sozinhos.";
    "Set a tenant's connector, or replace it; the token is read from standard input and kept sealed"
    "Define o connector de um tenant, ou o substitui; o token é lido da entrada padrão e guardado cifrado";
    "Set the filter of a table; without one it is taken away. It counts from the next base load on"
    "Define o filtro de uma tabela; sem filtro, ele é retirado. Vale a partir da próxima carga inicial";
    "Share tables: all that are named, or none"
    "Compartilha tabelas: todas as indicadas, ou nenhuma";
    "Show one with its environments, installations and apps"
    "Mostra um tenant com seus ambientes, instalações e aplicativos";
    "Staged tables with their live rows"
    "Tabelas na staging, com suas linhas vivas";
    "Staged tables, their rows and what stands in quarantine"
    "Tabelas na staging, suas linhas e o que está em quarentena";
    "Stop sharing a table; its staged rows stay"
    "Deixa de compartilhar uma tabela; as suas linhas ficam na staging";
    "Streams with who sends them"
    "Fluxos, com quem os envia";
    "TIME"
    "DATA";
    "Tables that are shared, each with its filter and its reload"
    "Tabelas compartilhadas, cada uma com o seu filtro e a sua recarga";
    "Tables to be shared"
    "Tabelas a compartilhar (entidades)";
    "Tables to share: A,B,C"
    "Tabelas a compartilhar: A,B,C";
    "Tables, by their names on the wire (SE1, FLAN)"
    "Tabelas, pelos nomes com que são enviadas (SE1, FLAN)";
    "Take a list of tables in, all or nothing, and tell each change"
    "Importa uma lista de tabelas, tudo ou nada, e diz cada mudança";
    "Take from a role whatever it reads of the staged tables"
    "Tira de um papel tudo o que ela lê das tabelas na staging";
    "Take it away"
    "Remove o connector";
    "Take the database that was refused last for the stream's own (DATABASE_CHANGED)"
    "Aceita como do fluxo o último banco recusado (DATABASE_CHANGED)";
    "Tell what would be removed, and remove nothing"
    "Diz o que seria removido, sem remover nada";
    "Tell what would become of them, and change nothing"
    "Diz o que aconteceria com elas, sem mudar nada";
    "Tell what would change, and change nothing"
    "Diz o que mudaria, sem mudar nada";
    "Tell whether it can be done, and change nothing"
    "Diz se isso pode ser feito, e não muda nada";
    "Tell which row it is, and change nothing"
    "Diz qual é a linha, sem mudar nada";
    "Tenant, by id or name"
    "Tenant, por id ou nome";
    "Tenant, by id or name; may be left out where there is one"
    "Tenant, por id ou nome; pode ser omitido se só houver um";
    "The batch's number, as the list shows it"
    "O número do pacote, como a lista o mostra";
    "The file; its ending (.toml, .csv) says how it is written"
    "O arquivo; a extensão (.toml, .csv) diz como está escrito";
    "The load may bring another primary key: the staging table is made anew"
    "A carga pode trazer outra chave primária: a tabela staging é refeita";
    "The message's number within its batch"
    "O número da mensagem no pacote";
    "The one tenant it opens, by id or name; left out: every tenant, and the server's own settings"
    "O único tenant que ele abre, por id ou nome; se omitido, todos os tenants e a configuração do servidor";
    "The predicate, in quotes; left out: none"
    "O filtro, entre aspas; se omitido, nenhum";
    "The role"
    "O papel";
    "The role, which the database has already"
    "O papel, que o banco de dados já tem";
    "The row, as the list names it"
    "A linha, como a lista a identifica";
    "The tenant's subdomain at Carol"
    "Subdomínio do tenant na Carol";
    "The token's name"
    "O nome do token";
    "They are the customer's own tables"
    "São tabelas próprias do cliente";
    "Tie an installation to an environment"
    "Vincula uma instalação a um ambiente";
    "Tokens of an administrator"
    "Tokens de um administrador";
    "Tokens of an administrator; never their secrets"
    "Tokens de um administrador; nunca os seus segredos";
    "Tokens of before stay good until they end by themselves, at most an hour. Where a key came into wrong hands:"
    "Os tokens anteriores continuam válidos até vencerem, em no máximo uma hora. Se uma chave caiu em mãos erradas:";
    "Try rows again against what is staged now; a newer image stays"
    "Tenta de novo linhas em quarentena sobre o que está na staging agora; uma imagem mais nova permanece";
    "Untie it; its senders are refused within 60 s"
    "Desfaz o vínculo; os seus remetentes são recusados em até 60 s";
    "What a new environment is: production, staging, development or custom"
    "O tipo de um ambiente novo: production, staging, development ou custom";
    "What administrators did"
    "O que os administradores fizeram (auditoria)";
    "What it is for"
    "Para que serve";
    "What tells this token from others of the same administrator"
    "O que distingue este token de outros do mesmo administrador";
    "What was done, the newest first"
    "O que foi feito, do mais novo ao mais antigo";
    "When it ends: a date (2027-01-31, its first moment in UTC) or a time (2027-01-31T12:00:00Z); left out: never"
    "Quando expira: uma data (2027-01-31, no seu primeiro instante em UTC) ou um horário (2027-01-31T12:00:00Z); se omitido, nunca";
    "Who may administer over the network"
    "Quem pode administrar pela rede";
    "Who sends, and what waits for a decision"
    "Quem envia, e o que espera por uma decisão";
    "Why; the audit keeps it"
    "O motivo; a auditoria o guarda";
    "With which credentials a tenant's senders reach Carol"
    "Com quais credenciais os remetentes de um tenant chegam à Carol";
    "Withdraw what the list does not name; its staged rows stay"
    "Retira o que a lista não cita; as linhas ficam na staging";
    "Workspaces of a tenant"
    "Ambientes de um tenant";
    "Write the list of shared tables to standard output"
    "Escreve a lista de tabelas compartilhadas na saída padrão";
    "operator (reads and changes) or read-only"
    "operator (lê e altera) ou read-only (só lê)";
    "production, staging, development or custom"
    "production, staging, development ou custom";
    "the answer to PRIMARY_KEY_CHANGED"
    "a resposta a PRIMARY_KEY_CHANGED";
    "toml or csv"
    "toml ou csv";
};
