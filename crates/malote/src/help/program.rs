//! Program: the words of the program as a whole, of clap, of the demo, and those that several commands share.
//!
//! Promises: sorted by the English text.
//! Never: holds what one side alone says.

pub(super) const TWINS: super::Twins = twins! {
    "Carries ERP data to the cloud in numbered batches with a summary, and can always say which one is missing"
    "Leva os dados do ERP para a nuvem em pacotes numerados, com sumário, e sempre sabe dizer qual está faltando";
    "Configuration file (agent.toml); each key also as MALOTE_AGENT_… in the environment"
    "Arquivo de configuração (agent.toml); cada chave vale também como MALOTE_AGENT_… no ambiente do sistema";
    "Examples:"
    "Exemplos:";
    "Exit code 0: equal; 3: different. MALOTE_LOG=info shows what server and agents log."
    "Código de saída 0: igual; 3: diferente. MALOTE_LOG=info mostra o log do servidor e dos agentes.";
    "FILE"
    "ARQUIVO";
    "FOLDER"
    "PASTA";
    "FORMAT"
    "FORMATO";
    "Follow an existing database instead, read-only: sqlite:FILE or postgres://user:password@host/database"
    "Acompanha um banco que já existe, só lendo: sqlite:ARQUIVO ou postgres://usuario:senha@host/banco";
    "Keep server and agent up afterwards, with addresses and credentials shown"
    "Mantém servidor e agente no ar ao final, com endereços e credenciais na tela";
    "LANGUAGE"
    "IDIOMA";
    "LIMIT"
    "LIMITE";
    "Language of what people read; else MALOTE_LANG or LANG"
    "Idioma dos textos; se omitido, vale MALOTE_LANG ou LANG";
    "NAME"
    "NOME";
    "Number the ERP's rows and its day are drawn from: the same seed, the same ERP"
    "Número do qual saem as linhas do ERP e o seu dia: a mesma semente, o mesmo ERP";
    "One JSON object a line on stdout: ready, leftOut, progress, step, difference, verified"
    "Um objeto JSON por linha em stdout: ready, leftOut, progress, step, difference, verified";
    "One JSON object on stdout"
    "Um objeto JSON em stdout";
    "Print help"
    "Mostra esta ajuda";
    "Print help (see a summary with '-h')"
    "Mostra a ajuda (a resumida, com '-h')";
    "Print help (see more with '--help')"
    "Mostra a ajuda (a completa, com '--help')";
    "Print this message or the help of the given subcommand(s)"
    "Mostra esta mensagem ou a ajuda do comando indicado";
    "Print version"
    "Mostra a versão";
    "ROLE"
    "PAPEL";
    "ROWS"
    "LINHAS";
    "Rows of the small ERP, spread over its tables"
    "Linhas do pequeno ERP, distribuídas pelas suas tabelas";
    "Run the cloud side, or set it up"
    "Executa o lado da nuvem, ou o configura";
    "Run the side beside the ERP, or look at it"
    "Executa o lado que fica junto ao ERP, ou mostra como ele está";
    "SEED"
    "SEMENTE";
    "Show and prove it all on this machine: a small ERP, server and agent, then row against row"
    "Mostra e comprova tudo nesta máquina: um pequeno ERP, servidor e agente, e depois linha contra linha";
    "TABLE"
    "TABELA";
    "TABLES"
    "TABELAS";
    "The table"
    "A tabela";
    "With --source: end after the base load was verified"
    "Com --source: termina depois de conferida a carga inicial";
};
