//! Agent: what `malote agent` says of itself.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "A detailed log of the running agent, on for a limited time and size"
    "Um log detalhado do agente em execução, por tempo e tamanho limitados";
    "A load removes nothing: what is staged stays, and rows that the ERP no longer has go with the next comparison of the keys."
    "Uma carga não remove nada: o que está na staging fica, e as linhas que o ERP não tem mais saem na próxima comparação das chaves.";
    "Answer only if this many are counted still"
    "Só responde se a contagem ainda for esta";
    "As the list shows it"
    "Como a lista o mostra";
    "Begin a detailed log in the data folder (detail.log), anew; it ends by itself, and with the agent"
    "Inicia um log detalhado na pasta de dados (detail.log), do zero; ele termina sozinho, e junto com o agente";
    "CONCEPT"
    "CONCEITO";
    "Columns side by side"
    "Colunas lado a lado";
    "Comma-separated, names in the first line (RFC 4180)"
    "Separado por vírgulas, com os nomes na primeira linha (RFC 4180)";
    "DAYS"
    "DIAS";
    "DURATION"
    "DURAÇÃO";
    "Days that stay; else history.keep_days of the configuration"
    "Dias que ficam; se omitido, history.keep_days da configuração";
    "End the detailed log; what was written stays until the next one begins"
    "Encerra o log detalhado; o que foi escrito fica até o próximo começar";
    "Every table of the plan"
    "Todas as tabelas do plano";
    "Everything"
    "Tudo";
    "Example, run by a superuser once per database:"
    "Exemplo, executado por um superusuário uma vez por banco:";
    "Forget a sealed secret"
    "Esquece um segredo selado";
    "Go on with what is written, until the log ends or Ctrl-C"
    "Acompanha o que é escrito, até o log terminar ou Ctrl-C";
    "How long it is on: a number with s, m or h, up to 24h"
    "Por quanto tempo fica ligado: um número com s, m ou h, até 24h";
    "How long the file may become: a number with KB, MB or GB, 64KB to 1GB"
    "Até que tamanho o arquivo pode chegar: um número com KB, MB ou GB, de 64KB a 1GB";
    "How many lines"
    "Quantas linhas";
    "How much is told"
    "Quanto é contado";
    "How the rows are written; --json is the same as json"
    "Como as linhas são escritas; --json equivale a json";
    "In the configuration:"
    "Na configuração:";
    "Keep the rows in the cloud; only a larger number asks again"
    "Mantém as linhas na nuvem; só um número maior pergunta de novo";
    "Keep the running agent from reading one table, or all; a restart does not end it"
    "Impede o agente em execução de ler uma tabela, ou todas; reiniciá-lo não encerra a pausa";
    "LEVEL"
    "NÍVEL";
    "Let a paused table, or the agent, go on"
    "Retoma uma tabela pausada, ou o agente";
    "Let exactly that many go, once: they are deleted in the cloud with the next scan"
    "Autoriza exatamente essa quantidade, uma vez: são excluídas na nuvem na próxima varredura";
    "Letters, digits, '-', '_' and '.'"
    "Letras, dígitos, '-', '_' e '.'";
    "Lift every pause, those of single tables too"
    "Encerra todas as pausas, também as de tabelas isoladas";
    "Look at the ERP database as a run would: what is found of each table, and what stands in the way"
    "Examina o banco do ERP como o agente o faria: o que há de cada tabela e o que impede o envio";
    "Look first, then confirm what you saw:"
    "Primeiro veja, depois confirme o que viu:";
    "Most rows to be removed; else history.clean_rows of the configuration"
    "Máximo de linhas a remover; se omitido, history.clean_rows da configuração";
    "Most rows to give"
    "Máximo de linhas a mostrar";
    "Most rows to give, up to 10000"
    "Máximo de linhas a mostrar, até 10000";
    "NUMBER"
    "NÚMERO";
    "Names and dates of the sealed secrets; values are never shown"
    "Nomes e datas dos segredos selados; os valores nunca são mostrados";
    "One SELECT over GDataShareRecords or GTOTVSAPPCONCEITOHST"
    "Um SELECT sobre GDataShareRecords ou GTOTVSAPPCONCEITOHST";
    "One object with columns and rows"
    "Um objeto com colunas e linhas";
    "Order the running agent to load one table again, or all"
    "Ordena ao agente em execução que carregue de novo uma tabela, ou todas";
    "Print the SQL of malote.safe_bound(), for the DBA of a PostgreSQL ERP to run (see BOUND_DEGRADED)"
    "Imprime o SQL de malote.safe_bound(), que o DBA de um ERP em PostgreSQL executa (veja BOUND_DEGRADED)";
    "Print the configuration in force, secrets redacted, and end"
    "Mostra a configuração em vigor, sem os segredos, e termina";
    "Print the last lines of the detailed log, also when it is off again"
    "Mostra as últimas linhas do log detalhado, mesmo depois de desligado";
    "Read what was sent with one SELECT: GDataShareRecords, GTOTVSAPPCONCEITOHST"
    "Consulta o que foi enviado com um SELECT: GDataShareRecords, GTOTVSAPPCONCEITOHST";
    "Remove old rows, oldest first; the last success of each concept stays"
    "Remove linhas antigas, das mais antigas em diante; fica o último sucesso de cada conceito";
    "Rows that vanished in such number that a person has to say whether they go (see DELETES_CAPPED)"
    "Linhas que sumiram em tal número que uma pessoa precisa dizer se são excluídas (veja DELETES_CAPPED)";
    "Run the agent until SIGTERM or Ctrl-C"
    "Executa o agente até SIGTERM ou Ctrl-C";
    "SIZE"
    "TAMANHO";
    "Seal a value under a name, in place of the one that was there. It is read from stdin, or typed unseen"
    "Sela um valor sob um nome, no lugar do que havia. O valor vem da entrada padrão, ou é digitado sem aparecer";
    "Secrets of the configuration, sealed in the data folder: {sealed:NAME} stands for one"
    "Segredos da configuração, selados na pasta de dados: {sealed:NAME} representa um deles";
    "Show how each table's batches and each job ended, the newest first"
    "Mostra como terminaram os pacotes de cada tabela e cada tarefa, do mais novo ao mais antigo";
    "Show one concept alone: a table, or a job"
    "Mostra um só conceito: uma tabela ou uma tarefa";
    "Show the running agent: each table's state and the last incidents; or what its configuration lacks (exit code 5)"
    "Mostra o agente em execução: o estado de cada tabela e as últimas ocorrências; ou o que falta na configuração (código de saída 5)";
    "Show what would be answered, and answer nothing"
    "Mostra o que seria respondido, sem responder";
    "Steps of reading and sending"
    "Os passos da leitura e do envio";
    "Tables to look at; else those of the configuration; else all that the login sees"
    "Tabelas a examinar; se omitidas, as da configuração; se nela não houver, todas que o login enxerga";
    "Tables with deletes above the cap: how many, since when, and the answer so far"
    "Tabelas com exclusões acima do limite: quantas, desde quando e a resposta até agora";
    "Tell how many would go, and remove none"
    "Diz quantas sairiam, sem remover nenhuma";
    "The agent's login, as pg_roles shows it, to be granted the use; else the grants are comments"
    "Login do agente, como em pg_roles, que recebe o direito de uso; se omitido, os grants ficam em comentário";
    "The table; left out: all"
    "A tabela; se omitida, todas";
    "The table; left out: what was paused as a whole. Tables paused by themselves stay so"
    "A tabela; se omitida, o que foi pausado por inteiro. Tabelas pausadas uma a uma continuam pausadas";
    "WORDS"
    "TEXTO";
    "What the usual log has"
    "O mesmo que o log comum";
    "Who pauses; else the user of this machine"
    "Quem pausa; se omitido, o usuário desta máquina";
    "Why, for those who look at the status"
    "O motivo, para quem consulta o status";
};
